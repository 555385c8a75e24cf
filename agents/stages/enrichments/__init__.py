"""The optional stages that make something of each completed transcript: one file a kind of enrichment."""
