"""From the outbox in PostgreSQL to Kafka, each row once."""
