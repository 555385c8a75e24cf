"""`/tenants/{tenant}/stats`: a tenant's last seven days in numbers, and its failures of the last 24 hours."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

from pydantic import Field

from schemas.events.base import Data
from web.parameters import OfTenant
from web.resources.jobs.links import link_to
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sinks.ports.reading.reports import DayCount, FailedExample, Reports

#: Days of the report, hours of its failures, and jobs that are shown of each code.
DAYS, HOURS, EXAMPLES = 7, 24, 3


class DayStats(Data):
    """Jobs that were uploaded on a day."""

    day: str = Field(description="in UTC")
    jobs: int
    by_status: dict[str, int] = Field(description="by the status that they have now")
    audio_minutes: float


class Completion(Data):
    """How long jobs took that completed in these days, from upload to completion; later runs are not counted."""

    jobs: int
    median_seconds: float | None
    p95_seconds: float | None


class FailedJob(Data):
    """A job that failed."""

    job_id: str
    filename: str
    reason: str | None
    failed_at: datetime
    link: str


class Failures(Data):
    """The failures with one code."""

    code: str | None = Field(description="see `job.failed`; null for jobs that failed before there were codes")
    jobs: int
    newest: list[FailedJob]


class TenantStatsView(Data):
    """What a tenant did in the last seven days."""

    tenant_id: str
    since: datetime
    until: datetime
    jobs: int
    audio_minutes: float
    days: list[DayStats] = Field(description="every day, oldest first")
    completion: Completion
    disputed_share: float | None = Field(
        description="share of the places in transcripts on which recognizers did not agree; null without any"
    )
    failures: list[Failures] = Field(description="of the last 24 hours, the most frequent code first")


_EXAMPLE: Final = {
    "tenant_id": "acme",
    "since": "2026-05-01T00:00:00Z",
    "until": "2026-05-07T12:00:00Z",
    "jobs": 120,
    "audio_minutes": 960.0,
    "days": [{"day": "2026-05-01", "jobs": 120, "by_status": {"completed": 119, "failed": 1}, "audio_minutes": 960.0}],
    "completion": {"jobs": 119, "median_seconds": 48.2, "p95_seconds": 190.0},
    "disputed_share": 0.08,
    "failures": [
        {
            "code": "unsupported_media",
            "jobs": 1,
            "newest": [
                {
                    "job_id": "4711ca11-0000-4000-8000-00000000000a",
                    "filename": "call.txt",
                    "reason": "call.txt holds no audio",
                    "failed_at": "2026-05-07T11:00:00Z",
                    "link": "/jobs/4711ca11-0000-4000-8000-00000000000a/status",
                }
            ],
        }
    ],
}


class TenantStats:
    """The numbers of a tenant."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/tenants/{tenant}/stats",
                operation_id="tenants_tenant_stats",
                summary="A tenant's last seven days in numbers, and its failures of the last 24 hours",
                handler=self.stats,
                parameters=OfTenant,
                responses={200: ResponseSpec("as of now", TenantStatsView, _EXAMPLE)},
            )
        ]

    async def stats(self, request: ApiRequest[OfTenant, None]) -> TenantStatsView:
        """The numbers as of now."""
        tenant, until = request.parameters.tenant, datetime.now(UTC)
        since = until.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
        activity = await self._reports.activity(tenant, since, until)
        failed = await self._reports.failures(tenant, until - timedelta(hours=HOURS), examples=EXAMPLES)
        days = _days(since, activity.days)
        return TenantStatsView(
            tenant_id=tenant,
            since=since,
            until=until,
            jobs=sum(day.jobs for day in days),
            audio_minutes=round(sum(day.audio_minutes for day in days), 1),
            days=days,
            completion=Completion(
                jobs=activity.completed, median_seconds=activity.median_s, p95_seconds=activity.p95_s
            ),
            disputed_share=activity.disputed_share,
            failures=_failures(failed, partial(link_to, tenant, part="status", operator=request.caller.is_operator)),
        )


def _days(since: datetime, counts: Iterable[DayCount]) -> list[DayStats]:
    of_day = defaultdict[str, list["DayCount"]](list)
    for count in counts:
        of_day[count.day].append(count)
    names = [f"{since + timedelta(days=n):%Y-%m-%d}" for n in range(DAYS)]
    return [
        DayStats(
            day=day,
            jobs=sum(count.jobs for count in of_day[day]),
            by_status={count.status: count.jobs for count in of_day[day]},
            audio_minutes=round(sum(count.audio_ms for count in of_day[day]) / 60_000, 1),
        )
        for day in names
    ]


def _failures(failed: Iterable[FailedExample], link: Callable[[str], str]) -> list[Failures]:
    return [
        Failures(code=code, jobs=jobs, newest=[_failed_job(example, link) for example in examples])
        for (code, jobs), examples in groupby(failed, lambda example: (example.code, example.jobs))
    ]


def _failed_job(example: FailedExample, link: Callable[[str], str]) -> FailedJob:
    return FailedJob(
        job_id=example.job_id,
        filename=example.filename,
        reason=example.reason,
        failed_at=example.failed_at,
        link=link(example.job_id),
    )
