"""Ports of what people ask about many rows at once."""
