"""Repairs beside the stages: stuck jobs, cancelled jobs, orphan blobs, expired rows."""
