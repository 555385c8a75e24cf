"""Commands for people who upload recordings and follow jobs."""
