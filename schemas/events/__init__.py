"""The events on the stream, a file a family: frozen pydantic models, from which the published schemas are made."""
