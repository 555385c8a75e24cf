"""The same in this process."""
