"""Doubles of what keeps the stores in order."""
