"""Webhooks: what is announced to tenants' endpoints, how it is signed, and when it is tried again."""
