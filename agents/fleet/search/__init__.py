"""The search index of a worker: its settings, its models, and what is served of it."""
