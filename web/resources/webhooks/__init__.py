"""Webhooks: a tenant's endpoints, and the history of deliveries to them."""
