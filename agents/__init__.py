"""What is done: one file a stage, the drivers that run them, and the composition root."""
