"""Text that every store takes: Kafka, PostgreSQL and JSON each refuse some of what Python's `str` can hold.

PostgreSQL stores no NUL, neither in `text` nor in `jsonb`. UTF-8, and so JSON, has no lone surrogates, which come from
strings that were cut in the middle of an emoji. Control characters are storable, but have no business in a message
that somebody reads.
"""

from __future__ import annotations

import re

#: Stands for each character that could not be kept.
REPLACEMENT = "\ufffd"

#: Characters of an error's text at most, wherever it is stored or published.
ERROR_CHARS = 2000

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def storable(text: str) -> str:
    """The text with U+FFFD for each NUL and each lone surrogate, and otherwise unchanged."""
    return text if text.isascii() and "\x00" not in text else _UNSTORABLE.sub(REPLACEMENT, text)


def readable(text: str, limit: int | None = None) -> str:
    """Storable text of at most `limit` characters, without control characters but tabs and newlines."""
    clean = text if text.isprintable() else storable(_CONTROL.sub("", text))
    return clean if limit is None or len(clean) <= limit else clean[: limit - 1] + "\u2026"


def described(exc: BaseException) -> str:
    """What an exception says, as readable text; its type where it says nothing, or where asking it fails."""
    try:
        said = readable(str(exc), ERROR_CHARS)
    except Exception:  # noqa: BLE001 - a foreign `__str__` may raise anything
        said = ""
    return said or type(exc).__name__
