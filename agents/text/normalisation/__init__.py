"""Comparable tokens of words: spelling, numbers, digits and sound."""
