"""`/jobs/{id}/transcript` in several formats, `/transcript/agent-optimized`, and `/transcript/raw`: how each word was
decided.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints
from urllib.parse import quote

from aiohttp import web
from pydantic import BaseModel, Field, create_model

from schemas.errors import NotFound
from schemas.events.base import Data
from schemas.jobs.rows import Transcript
from schemas.words import Reconciliation
from web.live.job_lookup import find_job, job_key
from web.parameters import Flag, WholeNumber
from web.resources.exports.export import Exports
from web.resources.exports.formats import FORMATS, FormatName, Options, format_of
from web.resources.exports.words import transcript_words
from web.resources.jobs.blob_response import hide_storage, send
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.jobs.rows import Job
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.connections.caller_limit import CallerLimit

#: The highest number of a run, see `schemas.events.base.Run`.
MAX_RUN: Final = 1_000_000


class TranscriptParameters(JobSelector):
    """A run of a job."""

    run: Annotated[int, WholeNumber(MAX_RUN)] | None = Field(None, description="default: the newest")


class ExportParameters(TranscriptParameters):
    """A run of a job, and how its transcript is written."""

    format: FormatName | None = Field(None, description="default: the one that `Accept` prefers, else json")
    speakers: Flag | None = Field(None, description="whether text names the speakers; default: true")
    timestamps: Flag | None = Field(None, description="whether txt and docx have times; default: false")
    mark_disputed: Flag | None = Field(
        None, description="`[word?]` in text, highlighted in docx, where recognizers did not agree; default: false"
    )

    @property
    def options(self) -> Options:
        """How it is written."""
        return Options(self.speakers, self.timestamps, self.mark_disputed)


#: Media types of a transcript besides JSON.
EXPORTED: Final = tuple(format.media_type for format in FORMATS if format.name != "json")

#: Columns that are not shown: where the store keeps what the links lead to.
_HIDDEN: Final = frozenset({"raw_transcript_uri", "agent_optimized_uri"})

_SEGMENTS: Final = Field(description="start_ms, end_ms, speaker, text, confidence of each, in order")


def _shown() -> dict[str, Any]:
    """The other columns, as fields of a model: a new column is shown without another list that names it."""
    types = get_type_hints(Transcript)
    columns = {
        column.name: (types[column.name], Field(... if column.default is MISSING else column.default))
        for column in fields(Transcript)
        if column.name not in _HIDDEN
    }
    return columns | {"segments": (types["segments"], _SEGMENTS), "links": (dict[str, str], ...)}


TranscriptView = create_model(
    "TranscriptView",
    __base__=Data,
    __doc__="The transcript for people to read; what each recognizer heard is behind `links.raw`.",
    **_shown(),
)


_EXAMPLE: Final = {
    "tenant_id": "acme",
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "run": 1,
    "text": "Hello.",
    "words": 1,
    "speakers": ["A"],
    "segments": [{"start_ms": 0, "end_ms": 400, "speaker": "A", "text": "Hello.", "confidence": 0.93}],
    "language": "en",
    "confidence": 0.93,
    "agreement": 1.0,
    "method": "calibrated",
    "provider_confidences": {"whisper-base": 0.91, "assemblyai": 0.97},
    "reconciliation_notes": [],
    "quality": {"expected_word_errors": 0.1},
    "duration_ms": 400,
    "links": {
        "status": "/jobs/4711ca11-0000-4000-8000-00000000000a/status",
        "audio": "/jobs/4711ca11-0000-4000-8000-00000000000a/audio",
        "raw": "/jobs/4711ca11-0000-4000-8000-00000000000a/transcript/raw?run=1",
    },
}

_READING: Final = {"text": "Hello.", "providers": ["whisper-base"], "probability": 0.93, "start_ms": 0, "end_ms": 400}
_RAW_EXAMPLE: Final = {
    "decisions": [{"chosen": _READING | {"confidence": 0.91}, "others": [], "rule": "single", "speaker": "A"}],
    "method": "single",
    "quality": {
        "confidence": 0.93,
        "agreement": None,
        "expected_word_errors": 0.1,
        "disputed_spans_per_1000_words": 0.0,
    },
    "providers": ["whisper-base"],
}

Request = ApiRequest[TranscriptParameters, None]


class Transcripts:
    """The transcript of a job's run, in all forms."""

    def __init__(self, reads: Reads, store: Store, streams: CallerLimit) -> None:
        self._reads, self._store, self._streams = reads, store, streams
        self._exports = Exports(reads, store, partial(transcript_words, store))

    def routes(self) -> list[AnyRoute]:
        """The transcript, the raw one, and the one for programs."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/transcript",
                operation_id="jobs_id_transcript",
                summary="The transcript of a job, as JSON or as a file for people",
                handler=self.transcript,
                parameters=ExportParameters,
                responses={
                    200: ResponseSpec("text and segments", TranscriptView, _EXAMPLE, media_types=EXPORTED),
                    406: ResponseSpec("`Accept` takes none of these formats; `detail` lists them"),
                    409: ResponseSpec(AMBIGUOUS),
                },
            ),
            Route(
                method="GET",
                path="/jobs/{id}/transcript/raw",
                operation_id="jobs_id_transcript_raw",
                summary="What each recognizer heard, and how each word was decided",
                handler=self.raw,
                parameters=TranscriptParameters,
                responses={
                    200: ResponseSpec("every word with all its readings", Reconciliation, _RAW_EXAMPLE),
                    409: ResponseSpec(AMBIGUOUS),
                },
                is_streamed=True,
            ),
            Route(
                method="GET",
                path="/jobs/{id}/transcript/agent-optimized",
                operation_id="jobs_id_transcript_agent_optimized",
                summary="The transcript for programs and prompts, with notes and the upload's metadata",
                handler=self.agent_optimized,
                parameters=TranscriptParameters,
                responses={
                    200: ResponseSpec("`agent_optimized.json`", media_type="application/json"),
                    409: ResponseSpec(AMBIGUOUS),
                },
                is_streamed=True,
            ),
        ]

    async def transcript(self, request: ApiRequest[ExportParameters, None]) -> web.StreamResponse:
        """The transcript in the format that is asked for."""
        asked = request.parameters
        format = format_of(asked.format, ",".join(request.http.headers.getall("Accept", [])), asked.options)
        transcript = await self._find(request)
        if format.name != "json":
            return await self._exports.response(transcript, format, asked.options)
        view = transcript_view(transcript, operator=request.caller.is_operator)
        headers = {"Vary": "Accept"}
        return web.Response(body=view.model_dump_json().encode(), content_type="application/json", headers=headers)

    async def agent_optimized(self, request: Request) -> web.StreamResponse:
        """The transcript as programs and prompts read it, as persist stored it."""
        return await self._blob(request, "agent_optimized_uri", "the agent-optimized transcript")

    async def raw(self, request: Request) -> web.StreamResponse:
        """All readings and decisions, as reconcile stored them."""
        return await self._blob(request, "raw_transcript_uri", "the raw transcript")

    async def _blob(self, request: Request, column: str, what: str) -> web.StreamResponse:
        with self._streams.acquire(request.caller):
            transcript = await self._find(request)
            uri: str = getattr(transcript, column)
            with hide_storage(what):
                blob = await self._store.stat(uri)
                if blob is None:
                    raise NotFound(uri)
            return await send(request.http, self._store, blob, f"{transcript.job_id}.json")

    async def _find(self, request: ApiRequest[Any, None]) -> Transcript:
        tenant, name = request.parameters.scope(request.caller)
        run, key = request.parameters.run, job_key(tenant, name)
        transcript = await self._reads.transcript(*key, run) if key else None
        if transcript is None:
            job = await find_job(self._reads, tenant, name)
            transcript = await self._reads.transcript(*job.key, run) if job.key != key else None
            if transcript is None:
                raise NotFound(no_transcript(job, run))
        return transcript


def transcript_view(transcript: Transcript, *, operator: bool = False) -> BaseModel:
    """The row without the URIs of its blobs."""
    job, tenant = f"/jobs/{quote(transcript.job_id)}", f"tenant={quote(transcript.tenant_id)}" if operator else ""
    values = {name: getattr(transcript, name) for name in TranscriptView.model_fields if name != "links"}
    raw = f"{job}/transcript/raw?run={transcript.run}" + (f"&{tenant}" if tenant else "")
    links = {name: f"{job}/{name}" + (f"?{tenant}" if tenant else "") for name in ("status", "audio")} | {"raw": raw}
    return TranscriptView.model_construct(**values, links=links)


def no_transcript(job: Job, run: int | None) -> str:
    """Why a job of the caller's own has no transcript."""
    if run is not None and run > job.run:
        return f"the job has {job.run} runs"
    if job.status == "failed" and run in (None, job.run):
        return "there is no transcript: the run failed, see the job's status"
    return f"there is no transcript {'of this run' if run else 'yet'}: the job is {job.status}"
