"""Doubles of what is sent by mail."""
