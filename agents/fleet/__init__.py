"""From settings to a running worker: the one composition root."""
