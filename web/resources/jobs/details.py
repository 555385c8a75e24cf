"""`/jobs/{id}`: everything about a job but its transcript; and what people do with its runs: cancel, reprocess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

from aiohttp import web
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from schemas.events.base import Data
from schemas.events.job import JobReprocess
from schemas.ids import Name
from schemas.jobs.status import status_of
from web.auth.access import WRITE
from web.live.job_lookup import find_job
from web.resources.jobs.job_view import EXAMPLE, JobView, job_view
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.jobs.rows import Job
    from sinks.ports.jobs import Jobs
    from sinks.ports.reads import Reads
    from sinks.ports.tenants import PerTenant
    from web.auth.caller import Caller


class ControlsRuns(Protocol):
    """What ends and begins runs; see `agents.stages.uploads.received.ReceivedUploads`."""

    async def cancel(self, job: Job, reason: str, author: str) -> Job:
        """End a job's run. Raises Conflict if it has ended."""

    async def reprocess(self, job: Job, wanted: JobReprocess, author: str) -> Job:
        """Begin a job's next run. Raises Conflict if its run has not ended."""


class JobDetails(JobView):
    """A job: its status, and what its upload said."""

    content_type: str | None = Field(description="of the stored recording; null until it is stored")
    duration_ms: int | None
    language: str
    priority: int
    options: dict[str, Any]
    metadata: dict[str, Any]


class Reason(Data):
    """Why a job is cancelled."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)] = "cancelled over HTTP"


class Reprocess(Data):
    """What of an ended job is done again."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    source: Literal["missing", "transcribe", "reconcile"] = Field(
        "missing",
        alias="from",
        description="`missing`: recognizers are asked that have not answered. `transcribe`: all are asked again, and "
        "may bill again. `reconcile`: none is asked; the answers that exist are reconciled again.",
    )
    recognizers: Annotated[tuple[Name, ...], Field(min_length=1, max_length=50)] | None = Field(
        None, description="only these are asked again, and those that have not answered"
    )
    reason: Annotated[str, StringConstraints(max_length=500)] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Reprocess:
        if self.recognizers is not None and self.source == "reconcile":
            raise ValueError("recognizers: none is asked where the run begins from `reconcile`")
        return self


_DETAILS: Final = dict(EXAMPLE) | {
    "content_type": "audio/wav",
    "duration_ms": 61_000,
    "language": "auto",
    "priority": 5,
    "options": {"diarize": False, "speakers": None, "redact_pii": None, "redact": None, "enrich": None},
    "metadata": {"agent": "Zoë"},
}

_REASON: Final = RequestBody(Reason, {"reason": "uploaded by mistake"}, empty=Reason())
_REPROCESS: Final = RequestBody(Reprocess, {"from": "reconcile"}, empty=Reprocess())


@dataclass(frozen=True)
class JobControl:
    """A job as a whole."""

    reads: Reads
    database: PerTenant[Jobs]
    runs: ControlsRuns

    def routes(self) -> list[AnyRoute]:
        """Show, cancel, reprocess."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}",
                operation_id="jobs_id",
                summary="A job: its status, options and metadata",
                handler=self.show,
                parameters=JobSelector,
                responses={
                    200: ResponseSpec("as PostgreSQL has it", JobDetails, _DETAILS),
                    409: ResponseSpec(AMBIGUOUS),
                },
            ),
            Route(
                method="POST",
                path="/jobs/{id}/cancel",
                operation_id="jobs_id_cancel",
                summary="End a job's run; what was sent to a recognizer may be billed",
                handler=self.cancel,
                parameters=JobSelector,
                body=_REASON,
                responses={
                    200: ResponseSpec("the job has failed with the code `cancelled`", JobView, EXAMPLE),
                    409: ResponseSpec("its run has ended already; or " + AMBIGUOUS),
                },
                access=WRITE,
            ),
            Route(
                method="POST",
                path="/jobs/{id}/reprocess",
                operation_id="jobs_id_reprocess",
                summary="Begin a new run of a job that has ended",
                handler=self.reprocess,
                parameters=JobSelector,
                body=_REPROCESS,
                responses={
                    202: ResponseSpec("the new run is on its way", JobView, EXAMPLE),
                    409: ResponseSpec("its run has not ended, or it has nothing to begin from; or " + AMBIGUOUS),
                },
                access=WRITE,
                accepts_idempotency_key=True,
            ),
        ]

    async def show(self, request: ApiRequest[JobSelector, None]) -> JobDetails:
        """The job."""
        job = await self._job(request)
        metadata = await self.database.acting_as(job.tenant_id).metadata(*job.key)
        view = _view(job, request.caller)
        values = {name: getattr(view, name) for name in JobView.model_fields}
        more = ("content_type", "duration_ms", "language", "priority", "options")
        values |= {name: getattr(job, name) for name in more} | {"metadata": metadata}
        return JobDetails.model_construct(**values)

    async def cancel(self, request: ApiRequest[JobSelector, Reason]) -> JobView:
        """End the job's run."""
        job = await self._job(request)
        return _view(await self.runs.cancel(job, request.body.reason, request.caller.id), request.caller)

    async def reprocess(self, request: ApiRequest[JobSelector, Reprocess]) -> web.StreamResponse:
        """Begin the job's next run."""
        job = await self._job(request)
        wanted = JobReprocess(
            tenant_id=job.tenant_id, job_id=job.job_id, run=job.run + 1, **request.body.model_dump(by_alias=False)
        )
        view = _view(await self.runs.reprocess(job, wanted, request.caller.id), request.caller)
        headers = {"Location": view.links["self"]}
        return web.json_response(text=view.model_dump_json(), status=202, headers=headers)

    async def _job(self, request: ApiRequest[JobSelector, Any]) -> Job:
        return await find_job(self.reads, *request.parameters.scope(request.caller))


def _view(job: Job, caller: Caller) -> JobView:
    return job_view(status_of(job), operator=caller.is_operator)
