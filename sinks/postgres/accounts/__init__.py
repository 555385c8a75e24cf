"""Accounts on PostgreSQL: keys, settings, use of the HTTP interface, and notices of their changes."""
