"""Doubles of what the database keeps about external recognizers and models."""
