"""The double of `sinks.reader`: the same questions to a `MemoryDatabase`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.jobs import ORDER, TERMINAL, File, Job, Status, Transcript
from sinks import Cursor, Page

if TYPE_CHECKING:
    from datetime import datetime

    from sinks.memory import MemoryDatabase


@dataclass(frozen=True)
class MemoryReader:
    """`sinks.Reads` on the double of the database."""

    database: MemoryDatabase

    async def job(self, tenant: str | None, job_id: str) -> Job | None:
        """The job's row."""
        job = await self.database.job(job_id)
        return job if job is not None and tenant in (None, job.tenant_id) else None

    async def jobs(
        self, tenant: str, *, status: Status | None = None, limit: int = 50, before: Cursor | None = None
    ) -> Page:
        """A page of a tenant's jobs."""
        mine = [job for job in await self._all() if job.tenant_id == tenant and status in (None, job.status)]
        mine.sort(key=lambda job: job.job_id)
        mine.sort(key=_created, reverse=True)
        if before is not None:
            mine = [job for job in mine if _is_behind(job, before)]
        page = mine[:limit]
        return Page(page, Cursor(_created(page[-1]), page[-1].job_id) if len(mine) > limit else None)

    async def transcript(self, tenant: str | None, job_id: str, run: int | None = None) -> Transcript | None:
        """The transcript of a run; by default of the newest run that has one."""
        runs = sorted(key[1] for key in self.database.transcripts if key[0] == job_id and run in (None, key[1]))
        found = self.database.transcripts[job_id, runs[-1]] if runs else None
        return found if found is not None and tenant in (None, found.tenant_id) else None

    async def files(self, tenant: str | None, job_id: str) -> list[File]:
        """Every blob of the job."""
        found = [file for _, file in sorted(self.database.files.items()) if file.job_id == job_id]
        return [file for file in found if tenant in (None, file.tenant_id)]

    async def tenants(self, limit: int = 1000) -> list[str]:
        """Who has jobs."""
        return sorted({job.tenant_id for job in await self._all()})[:limit]

    async def counts(self) -> dict[str, int]:
        """How many jobs have not ended, by status."""
        statuses = [job.status for job in await self._all()]
        return {status: statuses.count(status) for status in ORDER if status not in TERMINAL}

    async def _all(self) -> list[Job]:
        known = list(self.database._jobs)  # noqa: SLF001 -- two halves of one double
        return [job for job_id in known if (job := await self.database.job(job_id)) is not None]


def _created(job: Job) -> datetime:
    if job.created_at is None:
        raise ValueError("every stored job was created at some time")
    return job.created_at


def _is_behind(job: Job, cursor: Cursor) -> bool:
    created = _created(job)
    return created < cursor.created_at or (created == cursor.created_at and job.job_id > cursor.job_id)
