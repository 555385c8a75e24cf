"""Transcripts as files for people: which formats there are, and how one is made."""
