"""One file a stage, and what only one stage needs."""
