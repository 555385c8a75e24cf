"""Blob stores: a folder, S3, S3 with a folder to fall back on, and the double."""
