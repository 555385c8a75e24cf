"""The search index of a worker: its models, and what is served of it."""
