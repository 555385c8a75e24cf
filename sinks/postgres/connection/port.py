"""The base of the ports on PostgreSQL: a pool of connections, and statements by name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final, Self

import asyncpg

from sinks.ports.clock import Clock
from sinks.postgres.connection.errors import unavailable
from sinks.postgres.sql.queries import SQL

#: Seconds to wait for a free connection of the pool.
ACQUIRE_S = 10

#: From here to its end, a transaction sees and writes the rows of one tenant only. One statement: one round trip.
_AS_TENANT: Final = "SELECT set_config('role', 'concord_writer', true), set_config('concord.tenant', $1, true)"


class PostgresPort(Clock):
    """`Clock` on a pool. `shards` is how many relays share the rows of the outbox."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        self._pool = pool
        self._shards = shards
        self._tenant: str | None = None

    def acting_as(self, tenant: str, /) -> Self:
        """The same ports for one tenant: row-level security lets them read and write its rows only."""
        port = type(self)(self._pool, shards=self._shards)
        port._tenant = tenant  # noqa: SLF001 -- an object of this class
        return port

    async def now(self) -> datetime:
        """The database's time."""
        now: datetime = (await self._fetch("now"))[0][0]
        return now

    async def _fetch(self, name: str, *arguments: Any) -> list[Any]:
        """The rows of one statement, over a connection of its own."""
        if self._tenant is not None:
            async with self._transaction() as connection:
                rows: list[Any] = await connection.fetch(SQL[name], *arguments)
                return rows
        with unavailable():
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
                return await connection.fetch(SQL[name], *arguments)

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        """A connection in a transaction of its own."""
        with unavailable():
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
                if self._tenant is not None:
                    await connection.execute(_AS_TENANT, self._tenant)
                yield connection


def by_column(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows of so many columns as one list per column, for `unnest`; also where there are no rows."""
    return [[row[n] for row in rows] for n in range(width)]
