"""API keys of other servers, which are sent in a header."""

from __future__ import annotations

from schemas.errors import SettingsError


def require_sendable(key: str, variable: str) -> None:
    """Raises SettingsError if the key in `variable` is empty, or has characters that an HTTP header cannot have."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"{variable} must be printable ASCII without spaces")
