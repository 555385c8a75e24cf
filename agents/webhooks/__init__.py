"""Sends tenants' webhooks."""
