"""Hypotheses side by side: alignment and the word network."""
