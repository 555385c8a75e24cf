"""What Concord asks of a database and of a blob store: one small protocol a file."""
