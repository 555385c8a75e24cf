"""Doubles of accounts: keys, settings, and the use of the HTTP interface."""
