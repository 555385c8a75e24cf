"""What keeps the stores in order, on PostgreSQL."""
