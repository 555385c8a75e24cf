"""Changes on PostgreSQL, under row-level security."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.ids import EVERY_TENANT
from schemas.jobs.status import status_of
from sinks.ports.reading.changes import Change, Changes, ChangesSince
from sinks.postgres.sql.tables import LISTED_JOBS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schemas.events.job import JobStatus
    from sinks.postgres.reader import Reader


class PostgresChanges(Changes):
    """`Changes` over a reader's connections and slots."""

    def __init__(self, reader: Reader) -> None:
        self._read = reader.read

    async def now(self) -> datetime:
        """The database's time."""
        at: datetime = (await self._read(EVERY_TENANT, "now"))[0][0]
        return at

    async def changes(self, tenant: str, since: datetime, limit: int) -> ChangesSince:
        """The last change of each changed job."""
        rows = await self._read(tenant, "read_changes", since, limit)
        changed = [row for row in rows if row["job_id"] is not None]
        found = [Change(row["job_id"], (row["created_at"], row["version"]), row["updated_at"]) for row in changed]
        return ChangesSince(found, rows[0]["at"])

    async def statuses(self, tenant: str, job_ids: Sequence[str]) -> list[JobStatus]:
        """The statuses of these jobs."""
        return [status_of(LISTED_JOBS.read(row)) for row in await self._read(tenant, "read_statuses", job_ids)]
