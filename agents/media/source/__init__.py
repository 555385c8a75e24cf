"""Fetches recordings from URLs, local folders and our own storage, and checks which of these may be read."""
