"""Commands for operators: dead letters, outbox, requests, offsets, repairs."""
