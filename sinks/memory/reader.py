"""The double of `sinks.postgres.reader`: the same questions to a `MemoryDatabase`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.ids import EVERY_TENANT, Whose, canonical_uuid
from schemas.jobs.rows import OPEN, File, Job, Transcript
from schemas.jobs.status import StatusVersion, status_of, status_version
from sinks.memory.corrections.reads import CorrectionReads
from sinks.memory.reading.job_list import is_wanted
from sinks.ports.reads import EVERY_JOB, MANY, Cursor, JobFilter, Page, Reads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schemas.jobs.deletion import Deletion


@dataclass(frozen=True)
class MemoryReader(CorrectionReads, Reads):
    """`Reads` on the double of the database."""

    async def job(self, tenant: str, job_id: str) -> Job | None:
        """The job's row."""
        return await self.database.job(tenant, job_id)

    async def status_version(self, tenant: str, job_id: str) -> StatusVersion | None:
        """How new the job's row is."""
        job = await self.database.job(tenant, job_id)
        return status_version(status_of(job)) if job is not None else None

    async def find(self, whose: Whose, name: str, limit: int = MANY) -> list[Job]:
        """The jobs that are meant by an id or a reference."""
        ids = {name, canonical_uuid(name)}
        all_of = [job for job in self.database.all_jobs() if whose in (EVERY_TENANT, job.tenant_id)]
        meant = {job.tenant_id: job for job in all_of if job.reference == name}
        meant |= {job.tenant_id: job for job in all_of if job.job_id in ids}
        return [job for _, job in sorted(meant.items())][:limit]

    async def jobs(
        self, tenant: str, wanted: JobFilter = EVERY_JOB, *, limit: int = 50, before: Cursor | None = None
    ) -> Page:
        """A page of a tenant's jobs."""
        mine = [job for job in self.database.all_jobs() if job.tenant_id == tenant]
        mine = [job for job in mine if await self._is_wanted(job, wanted)]
        mine.sort(key=lambda job: job.job_id)
        mine.sort(key=_created, reverse=True)
        if wanted.oldest_first:
            mine.reverse()
        if before is not None:
            mine = [job for job in mine if _is_behind(job, before, oldest_first=wanted.oldest_first)]
        page = mine[:limit]
        return Page(
            [status_of(job) for job in page], Cursor(_created(page[-1]), page[-1].job_id) if len(mine) > limit else None
        )

    async def _is_wanted(self, job: Job, wanted: JobFilter) -> bool:
        transcript = await self.transcript(*job.key)
        metadata = await self.database.metadata(*job.key)
        return is_wanted(job, wanted, metadata, transcript.language if transcript else None)

    async def transcript(self, tenant: str, job_id: str, run: int | None = None) -> Transcript | None:
        """The transcript of a run; by default of the newest run that has one."""
        stored = self.database.transcripts
        runs = sorted(key for key in stored if key[:2] == (tenant, job_id) and run in (None, key[2]))
        return stored[runs[-1]] if runs else None

    async def files(self, tenant: str, job_id: str) -> list[File]:
        """Every blob of the job."""
        return [file for key, file in sorted(self.database.files.items()) if key[:2] == (tenant, job_id)]

    async def tenants(self, limit: int = 1000) -> list[str]:
        """The tenants that have jobs, in order."""
        return sorted({job.tenant_id for job in self.database.all_jobs()})[:limit]

    async def counts(self) -> dict[str, int]:
        """How many jobs have not ended, by status."""
        statuses = [job.status for job in self.database.all_jobs()]
        return {status: statuses.count(status) for status in OPEN}

    async def deletion(self, whose: Whose, id: str) -> Deletion | None:
        """The deletion with this id."""
        deletion = self.database.deletions.get(id)
        return deletion if deletion and whose in (EVERY_TENANT, deletion.tenant_id) else None

    async def deletion_of(self, whose: Whose, job_ids: Sequence[str]) -> Deletion | None:
        """The newest deletion of a job with one of these ids."""
        found = [d for d in self.database.deletions.values() if whose in (EVERY_TENANT, d.tenant_id)]
        of_jobs = [d for d in found if d.job_id in job_ids and d.scope == "job"]
        return max(of_jobs, key=lambda deletion: deletion.requested_at, default=None)


def _created(job: Job) -> datetime:
    if job.created_at is None:
        raise ValueError("every stored job was created at some time")
    return job.created_at


def _is_behind(job: Job, cursor: Cursor, *, oldest_first: bool) -> bool:
    created = _created(job)
    if created == cursor.created_at:
        return job.job_id < cursor.job_id if oldest_first else job.job_id > cursor.job_id
    return (created > cursor.created_at) is oldest_first
