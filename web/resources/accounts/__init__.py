"""Resources of accounts: API keys and settings."""
