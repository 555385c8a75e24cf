"""Publishes the rows of the PostgreSQL outbox to Kafka, each row exactly once."""
