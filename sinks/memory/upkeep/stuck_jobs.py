"""The double of jobs and enrichments that do not move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas import topics
from schemas.ids import Key, task_key
from schemas.jobs.enrichment import AFTER
from schemas.jobs.rows import Enrichment, Job, Status
from sinks.memory.state import MemoryState
from sinks.ports.upkeep.stuck_jobs import AWAITED, StuckEnrichment, StuckJob, StuckJobs


@dataclass
class MemoryStuckJobs(MemoryState, StuckJobs):
    """`StuckJobs` in this process."""

    #: By job: its version when it was revived, how often, and when last.
    _revivals: dict[Key, tuple[int, int, datetime]] = field(default_factory=dict)
    #: By enrichment and the time of its last change: how often it was revived since, and when last.
    _enrichment_revivals: dict[tuple[str, str, int, str, datetime], tuple[int, datetime]] = field(default_factory=dict)

    async def stuck_jobs(self, status: Status, before: datetime, limit: int) -> list[StuckJob]:
        """Jobs in this status that have not changed since `before` and for which no event waits."""
        idle = [job for job in self.all_jobs() if job.status == status and self._is_idle(job, before)]
        stuck = (self._stuck(job) for job in sorted(idle, key=lambda job: job.updated_at or before))
        return [one for one in stuck if one is not None][:limit]

    def _is_idle(self, job: Job, before: datetime) -> bool:
        _, _, revived_at = self._revivals.get(job.key, (0, 0, datetime.min.replace(tzinfo=UTC)))
        return (job.updated_at or before) < before and revived_at < before

    def _waiting_topics(self, job: Job) -> set[str]:
        """The topics of the events that wait for the job's current run."""
        return {m.topic for _, m in self.outbox if (m.tenant_id, m.job_id) == job.key and m.run in (None, job.run)}

    def _is_leased(self, *keys: str) -> bool:
        """Whether a task of one of these keys runs."""
        leases = (self._leases.get(key) for key in keys)
        return any(lease is not None and lease[1] > self.clock() for lease in leases)

    def _stuck(self, job: Job) -> StuckJob | None:
        waiting, run = self._waiting_topics(job), (*job.key, job.run)
        version, times, _ = self._revivals.get(job.key, (0, 0, None))
        times = times if version == job.version else 0
        if job.status != "transcribing":
            on_its_way = waiting & {*AWAITED[job.status]} or self._is_leased(
                task_key("fetch", *run), task_key("reconcile", *run)
            )
            return None if on_its_way else StuckJob(job, times=times)
        rows = self._of_run(*job.key, job.run).values()
        silent = sorted(
            r.provider
            for r in rows
            if not r.ended
            and topics.requests(r.provider).name not in waiting
            and not self._is_leased(*(task_key(kind, *run, r.provider) for kind in ("transcribe", "upload")))
        )
        without_deadline = topics.RECONCILE_DUE.name not in waiting
        return StuckJob(job, tuple(silent), without_deadline, times) if silent or without_deadline else None

    async def note_revivals(self, jobs: Sequence[Job]) -> None:
        """Count that the events of these jobs were made again."""
        for job in jobs:
            version, times, _ = self._revivals.get(job.key, (0, 0, None))
            self._revivals[job.key] = (job.version, times + 1 if version == job.version else 1, self.clock())

    async def stuck_enrichments(self, kind: str, before: datetime, limit: int) -> list[StuckEnrichment]:
        """Enrichments of this kind that have not changed since `before` and for which no event waits."""
        idle = [e for e in self.enrichments.values() if e.kind == kind and not e.ended and e.updated_at < before]
        stuck = [
            StuckEnrichment(e, times)
            for e in sorted(idle, key=lambda e: e.updated_at)
            for times, at in [self._revived(e)]
            if at < before and not self._has_event(e) and not self._waits(e)
        ]
        return stuck[:limit]

    def _revived(self, row: Enrichment) -> tuple[int, datetime]:
        key = (row.tenant_id, row.job_id, row.run, row.kind, row.updated_at)
        return self._enrichment_revivals.get(key, (0, datetime.min.replace(tzinfo=UTC)))

    def _has_event(self, row: Enrichment) -> bool:
        run = (row.tenant_id, row.job_id, row.run)
        waited = {topics.PERSISTED.name, topics.EDITED.name, topics.ENRICHMENT_FAILED.name, topics.due_name(row.kind)}
        return any(m.topic in waited and (m.tenant_id, m.job_id, m.run) == run for _, m in self.outbox)

    def _waits(self, row: Enrichment) -> bool:
        task = (row.kind, row.tenant_id, row.job_id, row.run)
        if self._is_leased(task_key(*task), task_key(*task, row.transcript_version)):
            return True
        others = (self.enrichments.get((row.tenant_id, row.job_id, row.run, kind)) for kind in AFTER.get(row.kind, ()))
        return any(other is not None and not other.ended for other in others)

    async def note_enrichment_revivals(self, rows: Sequence[Enrichment]) -> None:
        """Count that the events of these enrichments were made again."""
        for row in rows:
            key = (row.tenant_id, row.job_id, row.run, row.kind, row.updated_at)
            self._enrichment_revivals[key] = (self._revived(row)[0] + 1, self.clock())
