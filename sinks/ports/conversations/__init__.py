"""What is asked of the database about conversations."""
