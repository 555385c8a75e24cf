"""Vectors of texts: the models that make them, and the work of making them for every passage."""
