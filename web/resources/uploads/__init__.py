"""What comes in over HTTP: recordings, in a request or straight into the store."""
