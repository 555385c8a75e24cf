"""Doubles of the ports, which pass the same contract suites as PostgreSQL."""
