"""Searches transcripts by their words and by their meaning, and answers questions about them."""
