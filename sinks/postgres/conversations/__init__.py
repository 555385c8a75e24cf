"""The same on PostgreSQL."""
