"""Statements of readers that are composed of parts, and reports that add up many rows."""
