"""Reports on PostgreSQL, under row-level security."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.accounts.changes import ABOUT
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
from sinks.postgres.sql.tables import PROVIDER_REQUESTS

if TYPE_CHECKING:
    from datetime import datetime

    from schemas.accounts.changes import About
    from sinks.postgres.reader import Reader


class PostgresReports(Reports):
    """`Reports` over a reader's connections and slots."""

    def __init__(self, reader: Reader) -> None:
        self._read = reader.read

    async def audit(self, tenant: str, job_id: str, *, limit: int, after: int = 0) -> list[AuditRow]:
        """Entries of a job's trail."""
        return [AuditRow(**row) for row in await self._read(tenant, "report_audit", job_id, after, limit)]

    async def account_changes(
        self, tenant: str | None, *, limit: int, before: int | None = None, about: About | None = None
    ) -> list[AccountChange]:
        """The newest changes of keys, settings, webhooks and voice prints."""
        whose = EVERY_TENANT if tenant is None else tenant
        named = EVERY_TENANT.value if tenant is None else tenant
        rows = await self._read(
            whose, "report_account_changes", named, before, [about] if about else list(ABOUT), limit
        )
        return [AccountChange(**row) for row in rows]

    async def measures(self, tenant: str, job_id: str, run: int) -> Measures:
        """What is known of a run."""
        work, requests, quality, usage = [
            await self._read(tenant, f"report_{name}", job_id, run)
            for name in ("work", "requests", "quality", "job_usage")
        ]
        return Measures(
            work=[StepWork(**row) for row in work],
            provider_requests=[PROVIDER_REQUESTS.read(row) for row in requests],
            quality=quality[0]["quality"] if quality else {},
            usage=[UsedUp(**row) for row in usage],
        )

    async def activity(self, tenant: str, since: datetime, until: datetime) -> Activity:
        """What the tenant did in a time."""
        days, completions, disputed = [
            await self._read(tenant, f"report_{name}", since, until) for name in ("days", "completions", "disputed")
        ]
        times = [time.total_seconds() for time in completions[0]["seconds"] or ()]
        median_s, p95_s = times or (None, None)
        return Activity(
            days=[DayCount(**row) for row in days],
            completed=completions[0]["completed"],
            median_s=median_s,
            p95_s=p95_s,
            disputed_share=disputed[0]["share"],
        )

    async def failures(self, tenant: str, since: datetime, *, examples: int) -> list[FailedExample]:
        """The newest failures of each code."""
        return [FailedExample(**row) for row in await self._read(tenant, "report_failures", since, examples)]

    async def used(
        self, tenant: str, since: datetime, until: datetime, by: By, *, limit: int, after: UsagePlace | None = None
    ) -> list[UsedUp]:
        """What the tenant used up in a time."""
        place = after or ("", "", "")
        if by == "job":
            rows = await self._read(tenant, "report_usage_by_job", since, until, *place, limit)
        else:
            rows = await self._read(tenant, "report_usage", since, until, by, *place, limit)
        return [UsedUp(**row) for row in rows]
