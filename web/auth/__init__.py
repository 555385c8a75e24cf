"""Authentication: API keys, the callers that they belong to, and the rules for who may call a route."""
