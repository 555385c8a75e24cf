"""Text of strangers, safe to show: it moves no cursor, forges no line of a log and turns no text around.

File names, reasons, error messages of servers and words of transcripts come from outside. Whatever shows one, on a
terminal or in a log, passes it through here first.
"""

from __future__ import annotations

import unicodedata
from typing import Final

#: Characters of a text that a log line or a line of a table shows at most.
LINE: Final = 4_000

#: Joiners inside words of Persian and Indian scripts and inside emoji: not printable to Python, and harmless.
_JOINERS: Final = "\u200c\u200d"


def printable(text: str, *, lines: bool = False, limit: int | None = None) -> str:
    r"""The text with everything that is no visible character spelt out, as `\x1b` or `\u202e`.

    With `lines`, line feeds and tabs stay; without, the result is one line. What is longer than `limit` characters is
    cut, and says so.
    """
    shown = text if limit is None else text[:limit]
    if not shown.isprintable():
        kept = _JOINERS + "\n\t" if lines else _JOINERS
        shown = "".join(c if c.isprintable() or c in kept else _spelt(c) for c in shown)
    return shown if limit is None or len(text) <= limit else f"{shown}... ({len(text)} characters in all)"


def printable_json(text: str) -> str:
    """JSON with the same characters escaped as JSON has it: it means what it meant. Line feeds between values stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _spelt(character: str) -> str:
    # No-break spaces and their kin are ordinary in ordinary text.
    return " " if unicodedata.category(character) == "Zs" else ascii(character)[1:-1]


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
