"""The search index on PostgreSQL: full text, and vectors where pgvector is there."""
