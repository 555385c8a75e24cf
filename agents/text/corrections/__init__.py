"""Corrections as pure functions over words: single changes, whole texts, and spans for the review queue."""
