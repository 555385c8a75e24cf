"""SQL lives in `.sql` files, one `-- name:` block a query; this reads them into a mapping by name."""

from __future__ import annotations

import re
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(*names: str) -> dict[str, str]:
    """The queries of `sinks/sql/<name>.sql`, by name; a name given twice is an error."""
    queries: dict[str, str] = {}
    for name in names:
        parts = _BLOCK.split(files("sinks").joinpath("sql", f"{name}.sql").read_text())
        for title, sql in zip(parts[1::2], parts[2::2], strict=True):
            if title in queries:
                raise ValueError(f"the query {title} is there twice")
            queries[title] = sql.strip()
    return queries
