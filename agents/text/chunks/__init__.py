"""Divides transcripts into passages for search, with every reading of their disputed words. Pure functions."""
