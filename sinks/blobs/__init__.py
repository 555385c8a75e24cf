"""Blob stores: a folder, S3, S3 with a folder as fallback, and the double."""
