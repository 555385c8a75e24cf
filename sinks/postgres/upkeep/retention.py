"""What is too old to be kept, on PostgreSQL."""

from __future__ import annotations

from sinks.ports.upkeep.retention import Expired, ExpiresJobs, ExpiresRows, Kind
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL

#: Most tenants whose jobs expire.
MANY = 1_000_000


class PostgresRetention(PostgresPort, ExpiresRows, ExpiresJobs):
    """`ExpiresRows` and `ExpiresJobs` on a pool."""

    async def forget(self, table: str, days: float, rows: int) -> int | None:
        """Delete a slice of a table's oldest rows; None if another worker is deleting."""
        async with self._transaction() as db:
            if not await db.fetchval(SQL["lock_retention"]):
                return None
            return int(await db.fetchval(SQL[f"expire_{table}"], days, rows))

    async def tenants(self) -> list[str]:
        """Every tenant that has jobs."""
        return [row["tenant_id"] for row in await self._fetch("read_tenants", MANY)]

    async def expired_jobs(self, tenant_id: str, kind: Kind, days: float, limit: int) -> list[str]:
        """Ids of the tenant's oldest jobs of this kind that ended more than so many days ago."""
        arguments = (tenant_id, days, limit)
        if kind == "files":
            rows = await self._fetch("expired_files", *arguments)
        else:
            rows = await self._fetch("expired_jobs", *arguments, kind)
        return [row["job_id"] for row in rows]

    async def count_expired(self, tenant_id: str, kind: Kind, days: float) -> Expired:
        """How many they are, and how large."""
        if kind == "files":
            [row] = await self._fetch("count_expired_files", tenant_id, days)
        else:
            [row] = await self._fetch("count_expired_jobs", tenant_id, days, kind)
        return Expired(**row)
