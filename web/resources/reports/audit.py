"""`/jobs/{id}/audit`: what was done with a job, step by step."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

from aiohttp import web
from pydantic import Field

from schemas.events.base import Data
from web.live.job_lookup import find_job
from web.paging import RowCursor, encode_place, page_response
from web.parameters import WholeNumber
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.reading.reports import Reports
    from sinks.ports.reads import Reads

#: Entries on a page, unless asked otherwise, and at most. An error has 2 kB.
PAGE, MAX_PAGE = 100, 500


class AuditEntryView(Data):
    """What one step did."""

    at: datetime
    run: int
    step: str = Field(description="the stage, or what a person did")
    what: str
    duration_ms: float | None
    attempt: int = Field(description="number of earlier attempts")
    error: str | None
    author: str | None = Field(description="who did it, where a person did: the id of an API key, for example")


class AuditPage(Data):
    """Some of a job's audit trail, oldest first."""

    entries: list[AuditEntryView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class AuditParameters(JobSelector):
    """A page of a job's audit trail."""

    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: RowCursor | None = Field(None, description="`next` of the page before")


_EXAMPLE: Final = {
    "entries": [
        {
            "at": "2026-05-01T12:00:01Z",
            "run": 1,
            "step": "intake",
            "what": "created",
            "duration_ms": 81.5,
            "attempt": 0,
            "error": None,
        }
    ],
    "next": encode_place(4711),
}


class AuditTrail:
    """The audit trail of a job."""

    def __init__(self, reads: Reads, reports: Reports) -> None:
        self._reads, self._reports = reads, reports

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/audit",
                operation_id="jobs_id_audit",
                summary="What was done with a job, step by step",
                handler=self.audit,
                parameters=AuditParameters,
                responses={200: ResponseSpec("one page of it", AuditPage, _EXAMPLE), 409: ResponseSpec(AMBIGUOUS)},
            )
        ]

    async def audit(self, request: ApiRequest[AuditParameters, None]) -> web.StreamResponse:
        """A page of the trail."""
        asked = request.parameters
        job = await find_job(self._reads, *asked.scope(request.caller))
        # One more than asked for tells whether there is a next page.
        rows = await self._reports.audit(*job.key, limit=asked.limit + 1, after=asked.cursor or 0)
        following = encode_place(rows[asked.limit - 1].id) if len(rows) > asked.limit else None
        names = AuditEntryView.model_fields
        entries = [AuditEntryView(**{name: getattr(row, name) for name in names}) for row in rows[: asked.limit]]
        return page_response(request.http, AuditPage(entries=entries, next=following))
