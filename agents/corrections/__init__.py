"""Edits of transcripts: what they read, write and announce."""
