"""Cleans text and JSON values so that Kafka, PostgreSQL and JSON, which refuse some Python strings, accept them.

PostgreSQL stores no NUL, neither in `text` nor in `jsonb`. UTF-8, and so JSON, has no lone surrogates, which come from
strings that were cut in the middle of an emoji. Control characters are storable, but do not belong in a message for
people.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import orjson

#: Replaces each character that cannot be stored.
REPLACEMENT = "\ufffd"

#: Maximum characters of an error's text, wherever it is stored or published.
ERROR_CHARS = 2000

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def storable(text: str) -> str:
    """The text with each NUL and each lone surrogate replaced by U+FFFD."""
    return text if text.isascii() and "\x00" not in text else _UNSTORABLE.sub(REPLACEMENT, text)


def readable(text: str, limit: int | None = None) -> str:
    """Storable text of at most `limit` characters, without control characters except tabs and newlines."""
    clean = text if text.isprintable() else storable(_CONTROL.sub("", text))
    return clean if limit is None or len(clean) <= limit else clean[: limit - 1] + "\u2026"


def described(exc: BaseException) -> str:
    """The message of an exception as readable text; the name of its type if it has no message or `str` fails."""
    try:
        message = readable(str(exc), ERROR_CHARS)
    except Exception:  # noqa: BLE001 - the `__str__` of a library's exception may raise anything
        message = ""
    return message or type(exc).__name__


#: Maximum levels of nesting and number of values in external JSON: far more than the metadata of a call needs, and few
#: enough to visit each (20 ms).
MAX_DEPTH, MAX_VALUES = 64, 20_000

#: Beyond this range most JSON readers do not keep an integer: orjson refuses it, JavaScript rounds it.
_LEAST, _MOST = -(2**63), 2**64 - 1

_INFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def storable_json(value: Any) -> Any:
    """The value as JSON that every store accepts and returns unchanged.

    Texts become `storable`. Numbers that a store would refuse or change become text: infinities, NaN, and integers of
    more than 64 bits, such as the 20 digits of a SIM card's number.

    Raises:
        ValueError: the value is nested more than MAX_DEPTH levels deep, or has more than MAX_VALUES values.
    """
    count = itertools.count(1)

    def clean(value: Any, depth: int) -> Any:
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
                return {storable(str(key)): clean(inner, depth + 1) for key, inner in value.items()}
            case list() | tuple():
                return [clean(inner, depth + 1) for inner in value]
            case other:
                return storable(str(other))

    return clean(value, 0)


def written_bytes(value: Any) -> int:
    """Bytes of a `storable_json` value as JSON with numbers written out, as PostgreSQL does: `1e300` has 301 digits."""
    extra_digits, pending = 0, [value]
    while pending:
        inner = pending.pop()
        if isinstance(inner, float) and inner:
            exponent = abs(math.floor(math.log10(abs(inner))))
            extra_digits += exponent if exponent > 15 else 0
        elif isinstance(inner, dict):
            pending.extend(inner.values())
        elif isinstance(inner, list):
            pending.extend(inner)
    return len(orjson.dumps(value)) + extra_digits
