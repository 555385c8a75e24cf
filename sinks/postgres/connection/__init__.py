"""Connections to PostgreSQL: sessions and roles, what errors mean, and how many callers share one statement."""
