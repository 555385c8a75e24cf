"""Fetches, probes and decodes recordings. Uploaded files are opened in subprocesses only."""
