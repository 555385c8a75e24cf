"""Summaries of calls, and what they say of many."""
