"""The ports of the search index: what is asked of it, and how its vectors are made."""
