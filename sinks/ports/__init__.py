"""What Concord asks of a database and of a blob store: one small protocol a file.

Every method of a database port raises `Unavailable` when the database cannot be reached, or its subclass `Contended`
when another transaction holds a row for too long. What a port raises besides is said there.
"""
