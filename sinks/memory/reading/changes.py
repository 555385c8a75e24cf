"""The double of changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.jobs.status import status_of, status_version
from sinks.ports.reading.changes import Change, Changes, ChangesSince

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schemas.events.job import JobStatus
    from sinks.memory.database import MemoryDatabase


@dataclass(frozen=True)
class MemoryChanges(Changes):
    """`Changes` on the double of the database."""

    database: MemoryDatabase

    async def now(self) -> datetime:
        """The double's time."""
        return await self.database.now()

    async def changes(self, tenant: str, since: datetime, limit: int) -> ChangesSince:
        """The last change of each changed job."""
        at = await self.now()
        changed = [status for status in self._statuses(tenant) if status.updated_at >= since]
        found = [Change(status.job_id, status_version(status), status.updated_at) for status in changed[:limit]]
        return ChangesSince(found, at)

    async def statuses(self, tenant: str, job_ids: Sequence[str]) -> list[JobStatus]:
        """The statuses of these jobs."""
        return [status for status in self._statuses(tenant) if status.job_id in job_ids]

    def _statuses(self, tenant: str) -> list[JobStatus]:
        statuses = [status_of(job) for job in self.database.all_jobs() if job.tenant_id == tenant]
        return sorted(statuses, key=lambda status: (status.updated_at, status.job_id))
