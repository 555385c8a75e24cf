"""What is sent by mail, on PostgreSQL."""
