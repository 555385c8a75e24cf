"""The database ports on PostgreSQL."""
