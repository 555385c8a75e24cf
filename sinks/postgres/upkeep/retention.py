"""What is too old to be kept, on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sinks.ports.upkeep.retention import Expired, ExpiresJobs, ExpiresRows, Kind
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Most tenants whose jobs expire.
MANY = 1_000_000

#: By table, the time from which a row's age counts. Those of `BY_NUMBER` have numbers that rise with it, and so need no
#: index on it; the others have one, or are small. `audit_log` has a statement of its own, because tenants decide.
TIMES: Final[Mapping[str, str]] = {
    "inbox": "at",
    "adjudications": "at",
    "leases": "until",
    "usage": "at",
    "outbox_refused": "refused_at",
    "webhook_deliveries": "created_at",
    "webhook_secrets": "expires_at",
    "api_usage_metrics": "minute",
    "idempotency_keys": "created_at",
    "direct_uploads": "created_at",
    "issued_urls": "expires_at",
}
BY_NUMBER: Final = frozenset({"webhook_deliveries"})


def expiry(table: str) -> str:
    """The statement that deletes at most $2 of the table's oldest rows, of those that are older than $1 days."""
    if table == "audit_log":
        return SQL["forget_entries"]
    time = TIMES[table]
    is_old = f"{time} < now() - $1::float8 * interval '1 day'"
    if table in BY_NUMBER:
        key, some = "id", f"SELECT id FROM (SELECT * FROM {table} ORDER BY id LIMIT $2) AS oldest WHERE {is_old}"  # noqa: S608
    else:
        key, some = "ctid", f"SELECT ctid FROM {table} WHERE {is_old} ORDER BY {time} LIMIT $2"  # noqa: S608
    deleted = f"DELETE FROM {table} WHERE {key} = ANY(ARRAY({some})) RETURNING 1"  # noqa: S608 - constants, all three
    return f"WITH gone AS ({deleted}) SELECT count(*) FROM gone"  # noqa: S608


class PostgresRetention(PostgresPort, ExpiresRows, ExpiresJobs):
    """`ExpiresRows` and `ExpiresJobs` on a pool."""

    async def forget(self, table: str, days: float, rows: int) -> int | None:
        """Delete a slice of a table's oldest rows; None if another worker is deleting."""
        async with self._transaction() as db:
            if not await db.fetchval(SQL["lock_retention"]):
                return None
            return int(await db.fetchval(expiry(table), days, rows))

    async def count_expired_entries(self, days: float) -> dict[str, int]:
        """How many entries of the audit log are too old, by tenant."""
        return {row["tenant_id"]: row["entries"] for row in await self._fetch("count_expired_entries", days)}

    async def tenants(self) -> list[str]:
        """Every tenant that has jobs."""
        return [row["tenant_id"] for row in await self._fetch("read_tenants", MANY)]

    async def expired_jobs(self, tenant_id: str, kind: Kind, days: float, limit: int) -> list[str]:
        """Ids of the tenant's oldest jobs of this kind that ended more than so many days ago."""
        arguments = (tenant_id, days, limit)
        if kind in ("completed", "failed"):
            rows = await self._fetch("expired_jobs", *arguments, kind)
        else:
            rows = await self._fetch(f"expired_{kind}", *arguments)
        return [row["job_id"] for row in rows]

    async def count_expired(self, tenant_id: str, kind: Kind, days: float) -> Expired:
        """How many they are, and how large."""
        if kind in ("completed", "failed"):
            [row] = await self._fetch("count_expired_jobs", tenant_id, days, kind)
        else:
            [row] = await self._fetch(f"count_expired_{kind}", tenant_id, days)
        return Expired(**row)
