"""Commands that work over the HTTP API alone, so also on a fleet that runs elsewhere."""
