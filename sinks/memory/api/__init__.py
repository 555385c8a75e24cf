"""The doubles of what the HTTP interface alone asks of the database."""
