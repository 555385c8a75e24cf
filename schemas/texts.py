"""Cleans text and JSON values so that Kafka, PostgreSQL and JSON, which refuse some Python strings, accept them.

PostgreSQL stores no NUL, neither in `text` nor in `jsonb`. UTF-8, and so JSON, has no lone surrogates, which come from
strings that were cut in the middle of an emoji. Control characters are storable, but do not belong in a message for
people.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Iterable
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


#: Characters of Chinese and Japanese with their punctuation, and of the other scripts that are written without spaces
#: between words: Thai, Lao, Tibetan, Burmese, Khmer. (Korean is written with spaces.)
_EAST_ASIAN = "\u2e80-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff"
_OTHER = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f"
_UNSPACED = re.compile(f"[{_EAST_ASIAN}{_OTHER}]")
_EAST_ASIAN_MARK = re.compile("[\u3000-\u3004\u3007-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]")
_EAST_ASIAN_LETTER = re.compile(f"[{_EAST_ASIAN}]")
_MARKS = "".join(map(chr, range(0x21, 0x30))) + ":;<=>?@[]^_`{|}~\u2026\u2019\u201c\u201d"


#: What may end a sentence: of Latin, East Asian, Indian and Arabic scripts.
SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "।", "؟", "۔")  # noqa: RUF001


def is_unspaced(character: str) -> bool:
    """Whether the character belongs to a script that is written without spaces between words."""
    return _UNSPACED.match(character) is not None


def is_part(before: str, text: str) -> bool:
    """Whether `text` cannot begin a word after the word `before`: it combines with its last letter, or both are parts
    of one word in a script with spaces (`Har`, `ry`).
    """
    if not before or not text:
        return False
    first, last = text[0], before[-1]
    combines = unicodedata.category(first).startswith("M")
    return combines or (first.isalnum() and last.isalnum() and not is_unspaced(first) and not is_unspaced(last))


def joined(words: Iterable[str]) -> str:
    """The words as a line of text: with spaces, but without them between words of scripts that have none."""
    text: list[str] = []
    before = ""
    for word in filter(None, words):
        text += (separator(before, word), word)
        before = word
    return "".join(text)


def separator(before: str, word: str) -> str:
    """What is written between two words: a space; nothing in scripts without spaces, and where one is empty."""
    return " " if before and word and not _adjoin(before, word) else ""


def _adjoin(left: str, right: str) -> bool:
    if left.isascii() and right.isascii():
        return False
    if _EAST_ASIAN_MARK.match(left[-1]) or _EAST_ASIAN_MARK.match(right):
        return True
    last, first = (left.rstrip(_MARKS) or left)[-1], (right.lstrip(_MARKS) or right)[0]
    if is_unspaced(last):
        return is_unspaced(first) or (first.isdecimal() and _EAST_ASIAN_LETTER.match(last) is not None)
    return last.isdecimal() and _EAST_ASIAN_LETTER.match(first) is not None


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
