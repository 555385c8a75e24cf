"""The ports of webhooks: endpoints as tenants see them, and the queue from which a worker delivers."""
