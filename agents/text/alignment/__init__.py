"""The word network: hypotheses of one recording, aligned."""
