"""What the HTTP interface alone asks of the database, on PostgreSQL."""
