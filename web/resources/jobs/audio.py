"""`/jobs/{id}/audio`: a job's recording, by a link to object storage or streamed with ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from pydantic import Field

from schemas.errors import NotFound
from schemas.jobs.rows import File, Job
from web.live.job_lookup import find_job
from web.resources.jobs.blob_response import Redirect, file_responses, send_file
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.resources.jobs.unredacted import NEEDS_SCOPE, Unredacted, check_unredacted
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.connections.caller_limit import CallerLimit


class AudioParameters(JobSelector):
    """A job's recording."""

    redirect: Redirect = True
    unredacted: Unredacted = False
    direct: str | None = Field(
        None, description="`no`: as redirect=false, for earlier clients; any other value counts as none"
    )


Request = ApiRequest[AudioParameters, None]


class JobAudio:
    """The recording of a job."""

    def __init__(self, reads: Reads, store: Store, streams: CallerLimit) -> None:
        self._reads, self._store, self._streams = reads, store, streams

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/audio",
                operation_id="jobs_id_audio",
                summary="The recording of a job",
                handler=self.audio,
                parameters=AudioParameters,
                responses=file_responses("the recording", "audio/*")
                | {403: ResponseSpec(NEEDS_SCOPE), 409: ResponseSpec(AMBIGUOUS)},
                is_streamed=True,
            )
        ]

    async def audio(self, request: Request) -> web.StreamResponse:
        """A redirect to object storage if it makes links, else the recording. Of a job whose personal data are hidden,
        the one in which they are silent.
        """
        check_unredacted(request.caller, asked=request.parameters.unredacted)
        with self._streams.acquire(request.caller):
            return await self._audio(request)

    async def _audio(self, request: Request) -> web.StreamResponse:
        job = await find_job(self._reads, *request.parameters.scope(request.caller))
        stored = await self._reads.files(*job.key)
        original = _wanted(job, stored, unredacted=request.parameters.unredacted)
        redirect = request.parameters.redirect and request.parameters.direct != "no"
        return await send_file(request.http, self._store, original, job.filename, redirect=redirect)


def _wanted(job: Job, stored: Sequence[File], *, unredacted: bool) -> File:
    """The newest recording that the caller may hear. Raises `NotFound`."""
    kind = "redacted_audio" if job.is_redacted and not unredacted else "original"
    newest = next((file for file in reversed(stored) if file.kind == kind), None)
    if newest is not None:
        return newest
    if kind == "original":
        raise NotFound(f"the recording is not stored yet; the job is {job.status}")
    raise NotFound(f"personal data are not silent yet in this recording; the job is {job.status}")
