"""Every statement by its name: the `-- name:` blocks of the `.sql` files in this folder, with their column lists."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

from sinks.postgres.sql.tables import fill

_BLOCK = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def _load() -> dict[str, str]:
    """Raises ValueError for a name that is given twice."""
    queries: dict[str, str] = {}
    for file in files("sinks.postgres").joinpath("sql").iterdir():
        if file.name.endswith(".sql"):
            _, *parts = _BLOCK.split(file.read_text())
            for name, sql in zip(parts[::2], parts[1::2], strict=True):
                if name in queries:
                    raise ValueError(f"{file.name}: there is another statement named {name}")
                queries[name] = fill(sql.strip())
    return queries


SQL: Final = _load()
