"""Recordings: where they come from, what they are, their sound. Uploaded files are opened in subprocesses only."""
