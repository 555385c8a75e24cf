"""Ports of what is sent by mail."""
