"""The current status of jobs, and its changes as they are committed."""
