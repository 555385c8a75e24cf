"""Arbitrary requests to the HTTP API by its own document, and the times of its answers about other tenants' things."""
