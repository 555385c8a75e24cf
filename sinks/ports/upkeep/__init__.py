"""What is asked of the database to keep the stores in order: stuck jobs, orphan blobs, old rows, and comparisons."""
