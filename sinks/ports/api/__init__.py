"""What the HTTP interface alone asks of the database."""
