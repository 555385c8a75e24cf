"""`/webhooks/{name}`: transcripts of outside transcription services, signed by the Standard Webhooks specification.

A transcript becomes the hypothesis of the recognizer `webhook-<name>`: it is stored, then the request ends, in the one
transaction that also remembers the message by its `webhook-id`. What comes twice, or too late, changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, Protocol

from aiohttp import web
from pydantic import Field

from schemas import blob_names, ids
from schemas.events.base import Data, Reason
from schemas.events.received import MAX_BYTES, ReceivedWords
from schemas.ids import Name, Reference
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.received import answered, failed
from schemas.jobs.rows import Job
from schemas.webhooks.signature import ID, SIGNATURE, TIMESTAMP, BadSignature, verify
from schemas.words import Hypothesis, adapter
from sinks.ports.blobs import Store
from sinks.ports.providers.requests import Requests
from sinks.ports.reads import Reads
from sinks.ports.steps import Steps
from sinks.ports.tenants import PerTenant
from web.auth.access import PUBLIC
from web.live.job_lookup import find_job
from web.parameters import Parameters
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

#: Seconds in which a transcript must have arrived.
READ_S = 20.0

#: Bodies that are read at once by a worker: before they are read, nobody knows who sent them.
AT_ONCE: Final = 4


class OfJob(Data):
    """Names the job that a service was asked about."""

    tenant_id: Name
    job_id: Reference = Field(description="the job's id or reference")
    run: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="default: the newest")


class ReceivedTranscript(OfJob, ReceivedWords):
    """A transcript: words with their times, or only text."""


class ReceivedFailure(OfJob):
    """Why there is no transcript."""

    error: Reason


class TranscriptionCompleted(Data):
    """The service has transcribed a recording."""

    type: Literal["transcription.completed"]
    data: ReceivedTranscript


class TranscriptionFailed(Data):
    """The service cannot transcribe a recording."""

    type: Literal["transcription.failed"]
    data: ReceivedFailure


Received = Annotated[TranscriptionCompleted | TranscriptionFailed, Field(discriminator="type")]

_EXAMPLE: Final = {
    "type": "transcription.completed",
    "data": {
        "tenant_id": "acme",
        "job_id": "call-4711",
        "language": "en",
        "words": [{"text": "Hello.", "start_ms": 0, "end_ms": 400, "confidence": 0.93, "speaker": "A"}],
    },
}


class ReceivedHeaders(Parameters):
    """Nothing but headers, which are checked with the body that they sign."""


class JobRequests(Requests, Steps, Protocol):
    """One tenant's requests, and how they end."""


class ReceivedTranscripts:
    """One route for each outside service."""

    def __init__(
        self,
        database: PerTenant[JobRequests],
        reads: Reads,
        store: Store,
        secret: str,
        recognizers: Iterable[tuple[str, str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`recognizers` are names in the path, each with the recognizer whose hypotheses come there."""
        self._database, self._reads, self._store = database, reads, store
        self._secret, self._recognizers, self._clock = secret, tuple(recognizers), clock
        self._slots = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[AnyRoute]:
        """The routes."""
        return [self._route(name, recognizer) for name, recognizer in self._recognizers]

    def _route(self, name: str, recognizer: str) -> AnyRoute:
        async def receive(request: ApiRequest[ReceivedHeaders, Any]) -> None:
            await self._receive(recognizer, request.http.headers[ID], request.body)

        body: RequestBody[Any] = RequestBody(
            Received,  # type: ignore[arg-type]  # a union is a type for pydantic only
            _EXAMPLE,
            max_bytes=MAX_BYTES,
            read_s=READ_S,
            any_media_type=True,
            is_strict=False,
            verify=self._verify,
            slots=self._slots,
        )
        return Route(
            method="POST",
            path=f"/webhooks/{name}",
            operation_id=f"webhooks_{name}",
            summary=f"A transcript by {name}, signed with WEBHOOK_SECRET in {ID}, {TIMESTAMP} and {SIGNATURE}",
            handler=receive,
            parameters=ReceivedHeaders,
            body=body,
            responses={
                204: ResponseSpec("it is kept, or was before, or comes too late"),
                401: ResponseSpec("the signature is missing, wrong or old"),
                404: ResponseSpec("there is no such job; send it again later"),
                409: ResponseSpec("the job's recognizers do not wait yet; send it again later"),
            },
            access=PUBLIC,
        )

    def _verify(self, request: web.Request, body: bytes) -> None:
        try:
            verify(self._secret, request.headers, body, self._clock())
        except BadSignature as exc:
            raise web.HTTPUnauthorized(text=str(exc)) from None

    async def _receive(self, recognizer: str, id: str, message: TranscriptionCompleted | TranscriptionFailed) -> None:
        data = message.data
        job = await find_job(self._reads, data.tenant_id, data.job_id)
        run = data.run or job.run
        database = self._database.acting_as(job.tenant_id)
        row = next((r for r in await database.requests(*job.key, run) if r.provider == recognizer), None)
        if row is None and run == job.run and not job.ended:
            text = "the job's recognizers do not wait yet; send it again in some seconds"
            raise web.HTTPConflict(text=text, headers={"Retry-After": "5"})
        if row is None or row.ended or run != job.run or job.ended:
            return
        event_id = ids.ingress_id(job.tenant_id, f"webhooks/{recognizer}", id, f"{job.job_id}/{run}")
        outcome = await self._outcome(recognizer, job, message)
        await database.commit([Step(f"transcribe.{recognizer}", event_id, outcome)])

    async def _outcome(
        self, recognizer: str, job: Job, message: TranscriptionCompleted | TranscriptionFailed
    ) -> Outcome:
        if isinstance(message, TranscriptionFailed):
            return failed(job.key, job.run, recognizer, message.data.error)
        hypothesis = message.data.hypothesis(recognizer)
        name = blob_names.hypothesis(*job.key, job.run, recognizer, restricted=job.is_redacted)
        blob = await self._store.put(name, adapter(Hypothesis).dump_json(hypothesis), "application/json")
        return answered(job, recognizer, hypothesis, blob.uri)
