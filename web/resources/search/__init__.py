"""Searching a tenant's transcripts."""
