"""Limits on HTTP connections and streamed responses, so that clients cannot use up a worker's descriptors."""
