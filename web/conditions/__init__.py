"""Requests that are carried out once (`Idempotency-Key`), or only if nothing has changed (`If-Match`)."""
