"""Builds a running worker from its settings; `build` is the only composition root."""
