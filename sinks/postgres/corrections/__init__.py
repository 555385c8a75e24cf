"""The ports of corrections on PostgreSQL."""
