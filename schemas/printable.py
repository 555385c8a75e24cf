"""Escapes control characters in external text, so that it can be printed on a terminal or written to a log.

File names, reasons, error messages of servers and words of transcripts come from outside. Unescaped, they could move
the cursor, forge log lines or reverse the direction of text.
"""

from __future__ import annotations

import unicodedata
from typing import Final

#: Maximum characters of a text in a log line or in a line of a table.
LINE: Final = 4_000

#: Joiners inside words of Persian and Indian scripts and inside emoji: harmless, though not printable to Python.
_JOINERS: Final = "\u200c\u200d"


def printable(text: str, *, lines: bool = False, limit: int | None = None) -> str:
    r"""The text with every invisible character escaped, as `\x1b` or `\u202e`.

    With `lines`, line feeds and tabs stay; without, the result is one line. A text of more than `limit` characters is
    cut and ends with its full length.
    """
    shown = text if limit is None else text[:limit]
    if not shown.isprintable():
        kept = _JOINERS + "\n\t" if lines else _JOINERS
        shown = "".join(c if c.isprintable() or c in kept else _visible_escape(c) for c in shown)
    return shown if limit is None or len(text) <= limit else f"{shown}... ({len(text)} characters in all)"


def printable_json(text: str) -> str:
    """JSON text with these characters as JSON escapes; it parses to the same value. Line feeds between values stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text)


def _visible_escape(character: str) -> str:
    # No-break spaces and similar characters are common in ordinary text.
    return " " if unicodedata.category(character) == "Zs" else ascii(character)[1:-1]


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
