"""Text, and JSON, that every store takes: Kafka, PostgreSQL and JSON each refuse some of what Python can hold.

PostgreSQL stores no NUL, neither in `text` nor in `jsonb`. UTF-8, and so JSON, has no lone surrogates, which come from
strings that were cut in the middle of an emoji. Control characters are storable, but have no business in a message
that somebody reads.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import orjson

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


#: Levels of nesting in JSON of others, and values in it, at most: far more than a label of a call needs, and few enough
#: for a look at each (20 ms).
MAX_DEPTH, MAX_VALUES = 64, 20_000

#: Beyond these an integer is no number any more to most readers of JSON: orjson refuses it, JavaScript rounds it.
_LEAST, _MOST = -(2**63), 2**64 - 1

_INFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def storable_json(value: Any) -> Any:
    """The value as JSON that every store takes and gives back as it is.

    Texts as `storable`; numbers that a store would refuse or change (integers of more than 64 bits, such as the 20
    digits of a SIM card's number, infinities and NaN) as text. Raises ValueError for what is too deep or too much.
    """
    count = itertools.count(1)

    def kept(value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
        if next(count) > MAX_VALUES:
            raise ValueError(f"has more than {MAX_VALUES} values")
        match value:
            case str():
                return storable(value)
            case bool() | None:
                return value
            case int():
                return value if _LEAST <= value <= _MOST else str(value)
            case float():
                return value if math.isfinite(value) else _INFINITE.get(value, "NaN")
            case dict():
                return {storable(str(key)): kept(inner, depth + 1) for key, inner in value.items()}
            case list() | tuple():
                return [kept(inner, depth + 1) for inner in value]
            case other:
                return storable(str(other))

    return kept(value, 0)


def written_bytes(value: Any) -> int:
    """Bytes of such a value as JSON, with its numbers written out as PostgreSQL does: `1e300` becomes 301 digits."""
    longer, left = 0, [value]
    while left:
        inner = left.pop()
        if isinstance(inner, float) and inner:
            exponent = abs(math.floor(math.log10(abs(inner))))
            longer += exponent if exponent > 15 else 0
        elif isinstance(inner, dict):
            left.extend(inner.values())
        elif isinstance(inner, list):
            left.extend(inner)
    return len(orjson.dumps(value)) + longer
