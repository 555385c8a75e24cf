"""Event payloads, one file per family: frozen pydantic models, from which the published JSON Schemas are generated."""
