"""Jobs and enrichments that do not move, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from schemas.jobs.enrichment import AFTER
from schemas.jobs.rows import Enrichment, Job, Status
from sinks.ports.upkeep.stuck_jobs import AWAITED, StuckEnrichment, StuckJob, StuckJobs
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.tables import ENRICHMENTS, JOBS


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

    async def stuck_enrichments(self, kind: str, before: datetime, limit: int) -> list[StuckEnrichment]:
        """Enrichments of this kind that have not changed since `before` and for which no event waits."""
        rows = await self._fetch("stuck_enrichments", kind, before, limit, list(AFTER.get(kind, ())))
        return [StuckEnrichment(ENRICHMENTS.read(row), row["revivals"]) for row in rows]

    async def note_enrichment_revivals(self, rows: Sequence[Enrichment]) -> None:
        """Count that the events of these enrichments were made again."""
        keys = [(row.tenant_id, row.job_id, row.run, row.kind) for row in rows]
        await self._fetch("note_enrichment_revivals", *by_column(keys, 4))
