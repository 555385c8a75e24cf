"""Moonshine, a recognizer of English in a subprocess."""
