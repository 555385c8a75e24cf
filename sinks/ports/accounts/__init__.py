"""The ports of accounts: keys, settings, and the use of the HTTP interface."""
