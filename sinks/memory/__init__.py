"""Doubles of the database ports for tests; they pass the same contract suites as PostgreSQL."""
