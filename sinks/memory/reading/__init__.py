"""Doubles of what readers compose of many rows."""
