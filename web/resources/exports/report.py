"""`/jobs/{id}/report`: the report on a job's newest run as PDF, by a link to object storage or from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from schemas.errors import NotFound
from schemas.jobs.rows import File, Job, newest_file
from web.live.job_lookup import find_job
from web.resources.jobs.blob_response import Redirect, file_responses, send_file
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.connections.caller_limit import CallerLimit


class ReportParameters(JobSelector):
    """A job's report."""

    redirect: Redirect = True


Request = ApiRequest[ReportParameters, None]


class JobReport:
    """The report on a job."""

    def __init__(self, reads: Reads, store: Store, streams: CallerLimit) -> None:
        self._reads, self._store, self._streams = reads, store, streams

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/report",
                operation_id="jobs_id_report",
                summary="The report on a job as PDF, of the transcript's newest version that has one",
                handler=self.report,
                parameters=ReportParameters,
                responses=file_responses("the report", "application/pdf") | {409: ResponseSpec(AMBIGUOUS)},
                is_streamed=True,
            )
        ]

    async def report(self, request: Request) -> web.StreamResponse:
        """A redirect to object storage if it makes links, else the report."""
        with self._streams.acquire(request.caller):
            job = await find_job(self._reads, *request.parameters.scope(request.caller))
            file = _newest(job, await self._reads.files(*job.key))
            filename, redirect = f"{job.reference or job.job_id}.pdf", request.parameters.redirect
            return await send_file(request.http, self._store, file, filename, redirect=redirect)


def _newest(job: Job, files: list[File]) -> File:
    """The report of the newest version that has one. Raises `NotFound`, with the reason why there is none."""
    if (file := newest_file(files, "report", job.run, job.transcript_version)) is not None:
        return file
    status = job.enrichment.get("report")
    if status is None:
        raise NotFound("there is no report: none is made of this job's transcripts")
    if status.state == "failed":
        raise NotFound(f"there is no report: {status.error}")
    raise NotFound(f"there is no report yet: it is {status.state}")
