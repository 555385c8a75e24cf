"""Rows that are too old to be kept, on PostgreSQL."""

from __future__ import annotations

from sinks.ports.upkeep.retention import ExpiresRows
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL


class PostgresRetention(PostgresPort, ExpiresRows):
    """`ExpiresRows` on a pool."""

    async def forget(self, table: str, days: float, rows: int) -> int | None:
        """Delete a slice of a table's oldest rows; None if another worker is deleting."""
        async with self._transaction() as db:
            if not await db.fetchval(SQL["lock_retention"]):
                return None
            return int(await db.fetchval(SQL[f"expire_{table}"], days, rows))
