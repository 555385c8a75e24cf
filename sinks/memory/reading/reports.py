"""The double of reports."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from schemas.accounts.changes import ABOUT, NO_JOB
from schemas.ids import EVERY_TENANT
from sinks.ports.reading.reports import (
    AccountChange,
    Activity,
    AuditRow,
    By,
    DayCount,
    FailedExample,
    Measures,
    Reports,
    StepWork,
    UsagePlace,
    UsedUp,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from schemas.accounts.changes import About
    from schemas.jobs.rows import Job, Usage
    from sinks.memory.database import MemoryDatabase


@dataclass(frozen=True)
class MemoryReports(Reports):
    """`Reports` on the double of the database."""

    database: MemoryDatabase

    async def audit(self, tenant: str, job_id: str, *, limit: int, after: int = 0) -> list[AuditRow]:
        """Entries of a job's trail."""
        return [row for row in self._trail(tenant, job_id) if row.id > after][:limit]

    def _trail(self, tenant: str, job_id: str) -> list[AuditRow]:
        return [
            AuditRow(id, at, e.run, e.step, e.what, e.duration_ms, e.attempt, e.error, e.author)
            for id, (e, at) in self.database.audit.items()
            if (e.tenant_id, e.job_id) == (tenant, job_id)
        ]

    async def account_changes(
        self, tenant: str | None, *, limit: int, before: int | None = None, about: About | None = None
    ) -> list[AccountChange]:
        """The newest changes of keys, settings, webhooks and voice prints."""
        whose = EVERY_TENANT.value if tenant is None else tenant
        return [
            AccountChange(id, at, e.step, e.what, e.subject, e.details, e.author)
            for id, (e, at) in reversed(self.database.audit.items())
            if (e.tenant_id, e.job_id) == (whose, NO_JOB)
            and (before is None or id < before)
            and e.step in ((about,) if about else ABOUT)
        ][:limit]

    async def measures(self, tenant: str, job_id: str, run: int) -> Measures:
        """What is known of a run."""
        of_step = defaultdict[str, list[AuditRow]](list)
        for row in self._trail(tenant, job_id):
            if row.run == run:
                of_step[row.step].append(row)
        transcript = self.database.transcripts.get((tenant, job_id, run))
        used = [u for u in self.database.usage if (u.tenant_id, u.job_id, u.run) == (tenant, job_id, run)]
        return Measures(
            work=[_work(step, rows) for step, rows in sorted(of_step.items())],
            provider_requests=await self.database.requests(tenant, job_id, run),
            quality=transcript.quality if transcript else {},
            usage=_added((job_id, one) for one in used),
        )

    async def activity(self, tenant: str, since: datetime, until: datetime) -> Activity:
        """What the tenant did in a time."""
        mine = [job for job in self.database.all_jobs() if job.tenant_id == tenant]
        days, audio_ms = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for job in mine:
            if job.created_at and since <= job.created_at < until:
                days[f"{job.created_at:%Y-%m-%d}", job.status] += 1
                audio_ms[f"{job.created_at:%Y-%m-%d}", job.status] += job.duration_ms or 0
        seconds = sorted(
            (job.completed_at - job.created_at).total_seconds()
            for job in mine
            if job.created_at
            and job.completed_at
            and since <= job.completed_at < until
            and (job.status, job.run) == ("completed", 1)
        )
        return Activity(
            days=[DayCount(*key, jobs, audio_ms[key]) for key, jobs in sorted(days.items())],
            completed=len(seconds),
            median_s=_percentile(seconds, 0.5),
            p95_s=_percentile(seconds, 0.95),
            disputed_share=self._disputed_share(tenant, since, until),
        )

    def _disputed_share(self, tenant: str, since: datetime, until: datetime) -> float | None:
        written_at = self.database.transcribed_at
        compared = [
            (text.words, text.agreement)
            for run, text in self.database.transcripts.items()
            if text.tenant_id == tenant and text.agreement is not None and since <= written_at[run] < until
        ]
        words = sum(words for words, _ in compared)
        return sum(words * (1 - agreement) for words, agreement in compared) / words if words else None

    async def failures(self, tenant: str, since: datetime, *, examples: int) -> list[FailedExample]:
        """The newest failures of each code."""
        of_code = defaultdict[str | None, list["Job"]](list)
        for job in self.database.all_jobs():
            if job.tenant_id == tenant and job.status == "failed" and job.completed_at and job.completed_at >= since:
                of_code[job.code].append(job)
        rows = []
        for code, jobs in sorted(of_code.items(), key=lambda item: (-len(item[1]), item[0] or "")):
            for job in sorted(jobs, key=lambda job: (job.completed_at, job.job_id), reverse=True)[:examples]:
                at = job.completed_at or since
                rows.append(FailedExample(code, len(jobs), job.job_id, job.filename, job.reason, at))
        return rows

    async def used(
        self, tenant: str, since: datetime, until: datetime, by: By, *, limit: int, after: UsagePlace | None = None
    ) -> list[UsedUp]:
        """What the tenant used up in a time."""
        rows = [(row, at) for row, at in self.database.usage_times() if row.tenant_id == tenant and since <= at < until]
        added = _added(({"day": f"{at:%Y-%m-%d}", "job": row.job_id}.get(by, ""), row) for row, at in rows)
        return [row for row in added if (row.of, row.provider, row.unit) > (after or ("", "", ""))][:limit]


def _work(step: str, rows: Sequence[AuditRow]) -> StepWork:
    return StepWork(step, len(rows), sum(row.attempt > 0 for row in rows), sum(row.duration_ms or 0 for row in rows))


def _added(rows: Iterable[tuple[str, Usage]]) -> list[UsedUp]:
    sums = defaultdict[UsagePlace, float](float)
    for of, row in rows:
        sums[of, row.provider, row.unit] += row.quantity
    return [UsedUp(*place, quantity) for place, quantity in sorted(sums.items())]


def _percentile(values: Sequence[float], share: float) -> float | None:
    return values[max(ceil(len(values) * share), 1) - 1] if values else None
