"""The double of the search index."""
