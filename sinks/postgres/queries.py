"""SQL lives in `.sql` files, one `-- name:` block a query; this reads them into a mapping by name, and runs them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import asyncpg

from sinks.postgres.errors import unavailable

_BLOCK = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(*names: str) -> dict[str, str]:
    """The queries of `sinks/postgres/sql/<name>.sql`, by name; a name given twice is an error."""
    queries: dict[str, str] = {}
    for name in names:
        parts = _BLOCK.split(files("sinks.postgres").joinpath("sql", f"{name}.sql").read_text())
        for title, sql in zip(parts[1::2], parts[2::2], strict=True):
            if title in queries:
                raise ValueError(f"the query {title} is there twice")
            queries[title] = sql.strip()
    return queries


async def fetch(pool: asyncpg.Pool[asyncpg.Record], sql: str, *arguments: Any) -> list[Any]:
    """The rows of one statement, over a connection of its own."""
    with unavailable():
        async with pool.acquire(timeout=10) as connection:
            return await connection.fetch(sql, *arguments)


@contextlib.asynccontextmanager
async def transaction(pool: asyncpg.Pool[asyncpg.Record]) -> AsyncIterator[Any]:
    """A connection in a transaction of its own."""
    with unavailable():
        async with pool.acquire(timeout=10) as connection, connection.transaction():
            yield connection
