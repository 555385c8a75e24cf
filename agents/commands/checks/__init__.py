"""What `concord doctor` checks, one file a server."""
