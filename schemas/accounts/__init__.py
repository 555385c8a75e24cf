"""Accounts: API keys, a tenant's settings, and how much its keys use the HTTP interface."""
