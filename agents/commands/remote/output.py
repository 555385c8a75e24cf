"""How commands over HTTP print: JSON as it came, or aligned columns, with colours on a terminal only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from schemas.printable import printable, printable_json

#: ANSI colours of statuses.
_COLOURS: Final[Mapping[str, str]] = {"completed": "32", "failed": "31", "done": "32", "paused": "33"}


def print_json(value: Any) -> None:
    """One document, indented."""
    print(printable_json(json.dumps(value, indent=2, ensure_ascii=False)), flush=True)


def print_json_lines(values: Iterable[Any]) -> None:
    """One document a line, as each arrives."""
    for value in values:
        print(printable_json(json.dumps(value, ensure_ascii=False)), flush=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under a header, each column as wide as its widest value; None is shown as `-`."""
    texts = [[printable("-" if value is None else str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    for row in (header, *texts):
        cells = [_coloured(text.ljust(width), text) for text, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip(), flush=True)


def time_text(text: str | None) -> str | None:
    """A time of the API, to the second."""
    return text and text[:19].replace("T", " ")


def _coloured(shown: str, text: str) -> str:
    colour = _COLOURS.get(text)
    return f"\x1b[{colour}m{shown}\x1b[0m" if colour and _has_colours() else shown


def _has_colours() -> bool:
    """Not where NO_COLOR is set (no-color.org), nor into a file or pipe."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
