"""`/jobs/{id}/transcript` in several formats, `/transcript/agent-optimized`, and `/transcript/raw`: how each word was
decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import MISSING, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import orjson
from aiohttp import web
from pydantic import BaseModel, Field, create_model

from schemas.errors import NotFound
from schemas.events.base import Data
from schemas.jobs.rows import Transcript
from schemas.words import Reconciliation
from web.conditions.preconditions import etag
from web.live.job_lookup import find_job, job_key
from web.parameters import Flag, WholeNumber
from web.resources.exports.export import Exports, WordsOf
from web.resources.exports.formats import FORMATS, FormatName, Options, format_of
from web.resources.jobs.blob_response import hide_storage, send
from web.resources.jobs.links import link_to
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.resources.jobs.unredacted import NEEDS_SCOPE, Unredacted, check_unredacted, unredacted
from web.resources.summaries.reading import summary_of
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.jobs.rows import Job
    from schemas.summaries import Summary
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.connections.caller_limit import CallerLimit

#: The highest number of a run, see `schemas.events.base.Run`.
MAX_RUN: Final = 1_000_000


class TranscriptParameters(JobSelector):
    """A run of a job."""

    run: Annotated[int, WholeNumber(MAX_RUN)] | None = Field(None, description="default: the newest")


class VersionParameters(TranscriptParameters):
    """A version of a run's transcript."""

    version: Annotated[int, WholeNumber(MAX_RUN)] | None = Field(None, description="default: the newest")


class AgentParameters(TranscriptParameters):
    """A run of a job, and whether its summary comes along."""

    with_summary: Flag | None = Field(
        None, alias="summary", description="whether `summary` is added, null if there is none; default: false"
    )


class RawParameters(TranscriptParameters):
    """A run of a job, redacted or not."""

    unredacted: Unredacted = False


class ExportParameters(VersionParameters):
    """A version of a run's transcript, and how it is written. What is not redacted is of the run's own version."""

    unredacted: Unredacted = False

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


class SpeakerSuggestion(Data):
    """A name that a speaker of the transcript may have."""

    speaker: str = Field(description="as the transcript calls the speaker")
    name: str = Field(description="the name of the voice print that is alike")
    similarity: float = Field(description="cosine of the two voices, up to 1")


_SUGGESTIONS: Final[Any] = Field(
    default=[],
    description="names for speakers, of voice prints of the tenant; the transcript does not change before somebody "
    "renames the speaker. Empty without the setting `voice_prints`, and in earlier versions",
)


def _shown() -> dict[str, Any]:
    """The other columns, as fields of a model: a new column is shown without another list that names it."""
    types = get_type_hints(Transcript)
    columns = {
        column.name: (types[column.name], Field(... if column.default is MISSING else column.default))
        for column in fields(Transcript)
        if column.name not in _HIDDEN
    }
    return columns | {
        "segments": (types["segments"], _SEGMENTS),
        "suggestions": (list[SpeakerSuggestion], _SUGGESTIONS),
        "links": (dict[str, str], ...),
    }


TranscriptView = create_model(
    "TranscriptView",
    __base__=Data,
    __doc__="The transcript for people to read; what each recognizer heard is behind `links.raw`.",
    **_shown(),
)


#: The fields that are columns.
_COLUMNS: Final = tuple(name for name in TranscriptView.model_fields if name not in ("suggestions", "links"))

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
    "version": 1,
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

#: An earlier version of this transcript, by its number. Raises `NotFound` if there is none.
Earlier = Callable[[Transcript, int], Awaitable[Transcript]]


class Transcripts:
    """The transcript of a job's run, in all forms."""

    def __init__(self, reads: Reads, store: Store, streams: CallerLimit, earlier: Earlier, words: WordsOf) -> None:
        self._reads, self._store, self._streams, self._earlier = reads, store, streams, earlier
        self._exports = Exports(reads, store, words)

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
                    200: ResponseSpec(
                        "text and segments; `ETag` is the version's", TranscriptView, _EXAMPLE, media_types=EXPORTED
                    ),
                    403: ResponseSpec(NEEDS_SCOPE),
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
                parameters=RawParameters,
                responses={
                    200: ResponseSpec("every word with all its readings", Reconciliation, _RAW_EXAMPLE),
                    403: ResponseSpec(NEEDS_SCOPE),
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
                parameters=AgentParameters,
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
        transcript = await self._version(request)
        headers = {"ETag": etag(transcript.run, transcript.version), "Vary": "Accept"}
        if format.name != "json":
            return await self._exports.response(transcript, format, asked.options, headers)
        is_newest = not request.parameters.unredacted and request.parameters.version in (None, transcript.version)
        suggestions = await self._suggestions(transcript) if is_newest else []
        view = transcript_view(transcript, suggestions, operator=request.caller.is_operator)
        return web.Response(body=view.model_dump_json().encode(), headers=headers, content_type="application/json")

    async def _suggestions(self, transcript: Transcript) -> list[SpeakerSuggestion]:
        """Names for speakers that the transcript has. It may have given all of a speaker's words to others."""
        if not transcript.speakers:
            return []
        found = await self._reads.voice_suggestions(transcript.tenant_id, transcript.job_id, transcript.run)
        return [
            SpeakerSuggestion(speaker=one.speaker, name=one.name, similarity=one.similarity)
            for one in found
            if one.speaker in transcript.speakers
        ]

    async def _version(self, request: ApiRequest[ExportParameters, None]) -> Transcript:
        transcript = await find_transcript(self._reads, request)
        if request.parameters.unredacted:
            return await self._unredacted(transcript, request)
        version = wanted_version(transcript, request.parameters.version)
        if version == transcript.version:
            return transcript
        with hide_storage("this version of the transcript"):
            return await self._earlier(transcript, version)

    async def _unredacted(self, transcript: Transcript, request: ApiRequest[ExportParameters, None]) -> Transcript:
        """The run's own version, with what is redacted for others."""
        check_unredacted(request.caller, asked=True)
        wanted_version(transcript := unredacted(transcript, self._store), request.parameters.version)
        with hide_storage("what is not redacted of this transcript"):
            return await self._earlier(transcript, 1)

    async def agent_optimized(self, request: ApiRequest[AgentParameters, None]) -> web.StreamResponse:
        """The transcript as programs and prompts read it."""
        if request.parameters.with_summary:
            return await self._summarised(request)
        return await self._blob(request, "agent_optimized_uri", "the agent-optimized transcript")

    async def raw(self, request: ApiRequest[RawParameters, None]) -> web.StreamResponse:
        """All readings and decisions, as reconcile stored them."""
        is_redacted = not request.parameters.unredacted
        check_unredacted(request.caller, asked=not is_redacted)
        return await self._blob(request, "raw_transcript_uri", "the raw transcript", is_redacted=is_redacted)

    async def _summarised(self, request: ApiRequest[AgentParameters, None]) -> web.StreamResponse:
        """With the summary. It is merged here: the blob is what `persisted` has announced, with its hash, and a summary
        comes later and may come again.
        """
        with self._streams.acquire(request.caller):
            transcript = await find_transcript(self._reads, request)
            with hide_storage("the agent-optimized transcript"):
                content = await self._store.get(transcript.agent_optimized_uri)
            summary = await summary_of(self._reads, self._store, transcript)
            body = await asyncio.to_thread(_merged, content, summary)
            return web.Response(body=body, content_type="application/json")

    async def _blob(
        self, request: ApiRequest[Any, None], column: str, what: str, *, is_redacted: bool = True
    ) -> web.StreamResponse:
        with self._streams.acquire(request.caller):
            transcript = await find_transcript(self._reads, request)
            transcript = transcript if is_redacted else unredacted(transcript, self._store)
            uri: str = getattr(transcript, column)
            with hide_storage(what):
                blob = await self._store.stat(uri)
                if blob is None:
                    raise NotFound(uri)
            return await send(request.http, self._store, blob, f"{transcript.job_id}.json")


def _merged(content: bytes, summary: Summary | None) -> bytes:
    merged: bytes = orjson.dumps(orjson.loads(content) | {"summary": summary and summary.model_dump(mode="json")})
    return merged


async def find_transcript(reads: Reads, request: ApiRequest[Any, Any]) -> Transcript:
    """The newest version of the transcript that a request with `TranscriptParameters` names.

    Raises:
        NotFound: the job or the run has none; the message says why.
    """
    parameters: TranscriptParameters = request.parameters
    tenant, name = parameters.scope(request.caller)
    run, key = parameters.run, job_key(tenant, name)
    transcript = await reads.transcript(*key, run) if key else None
    if transcript is None:
        job = await find_job(reads, tenant, name)
        transcript = await reads.transcript(*job.key, run) if job.key != key else None
        if transcript is None:
            raise NotFound(no_transcript(job, run))
    return transcript


def wanted_version(transcript: Transcript, version: int | None) -> int:
    """The number of the version that is asked for, by default the newest.

    Raises:
        NotFound: the transcript has no such version.
    """
    if version is not None and version > transcript.version:
        raise NotFound(f"the newest version of this transcript is {transcript.version}")
    return version or transcript.version


def transcript_view(
    transcript: Transcript, suggestions: Sequence[SpeakerSuggestion] = (), *, operator: bool = False
) -> BaseModel:
    """The row without the URIs of its blobs, with names for its speakers."""
    values: dict[str, Any] = {name: getattr(transcript, name) for name in _COLUMNS}
    values["suggestions"] = list(suggestions)
    link = partial(link_to, transcript.tenant_id, transcript.job_id, operator=operator)
    links = {"status": link("status"), "audio": link("audio"), "raw": link("transcript/raw", run=transcript.run)}
    return TranscriptView.model_construct(**values, links=links)


def no_transcript(job: Job, run: int | None) -> str:
    """Why a job of the caller's own has no transcript."""
    if run is not None and run > job.run:
        return f"the job has {job.run} runs"
    if job.status == "failed" and run in (None, job.run):
        return "there is no transcript: the run failed, see the job's status"
    return f"there is no transcript {'of this run' if run else 'yet'}: the job is {job.status}"
