"""Jobs that do not move, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from schemas.jobs.rows import Job, Status
from sinks.ports.upkeep.stuck_jobs import AWAITED, StuckJob, StuckJobs
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.tables import JOBS


class PostgresStuckJobs(PostgresPort, StuckJobs):
    """`StuckJobs` on a pool."""

    async def stuck_jobs(self, status: Status, before: datetime, limit: int) -> list[StuckJob]:
        """Jobs in this status that have not changed since `before` and for which no event waits."""
        rows = await self._fetch("stuck_jobs", status, before, limit, list(AWAITED.get(status, ())))
        return [
            StuckJob(JOBS.read(row), tuple(row["providers"]), row["without_deadline"], row["times"]) for row in rows
        ]

    async def note_revivals(self, jobs: Sequence[Job]) -> None:
        """Count that the events of these jobs were made again."""
        await self._fetch("note_revivals", *by_column([(job.tenant_id, job.job_id, job.version) for job in jobs], 3))
