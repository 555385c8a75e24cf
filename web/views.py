"""What HTTP shows, as documents: pure functions from what is stored. The models are also the published schemas."""

from __future__ import annotations

import asyncio
import base64
import binascii
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import quote

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from schemas.errors import InvalidInput, NotFound
from schemas.events.base import Data
from schemas.events.job import JobStatus, StepState
from schemas.ids import Name, Reference
from schemas.jobs.rows import ORDER, TERMINAL, Job, Status, Transcript
from sinks.ports.reads import Cursor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sinks.ports.reads import Page
    from web.ports import Health

#: Jobs on a page, unless asked otherwise, and at most; and bytes. A job has 2 kB, one whose every step failed 30.
PAGE, MAX_PAGE = 50, 500
PAGE_BYTES = 2 << 20

#: Jobs of a page after which others have their turn of the event loop: some milliseconds.
TURN: Final = 50

#: The highest run there can be, see `schemas.events.base.Run`.
RUNS: Final = 1_000_000

#: What is said of a job that is not there, or not the caller's: the same.
NO_JOB: Final = "there is no such job"
NO_TENANT: Final = "there is no such tenant"

#: Stages in the order a run goes through them; recognizers share one place.
_PIPELINE: Final = ("intake", "transcribe", "reconcile", "persist")
#: Which stage has the job in which status.
_AT_WORK: Final = dict(zip(ORDER, _PIPELINE, strict=False))

STATUSES: Final[tuple[str, ...]] = get_args(Status)
_NAME: TypeAdapter[str] = TypeAdapter(Name)
#: What names a job: every id is a possible reference, too.
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)


class JobView(JobStatus):
    """Where a job stands."""

    stage: str | None = Field(description="the stage that has the job, or in which it failed; null when completed")
    links: dict[str, str] = Field(description="what else there is of this job, by kind")


class JobPage(Data):
    """Some of a tenant's jobs, newest first."""

    jobs: list[JobView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class TranscriptView(Data):
    """What was said, for people; what each recognizer heard is behind `links.raw`."""

    tenant_id: str
    job_id: str
    run: int
    text: str
    words: int
    speakers: list[str]
    segments: list[dict[str, Any]] = Field(description="start_ms, end_ms, speaker, text, confidence of each, in order")
    language: str | None
    confidence: float | None
    agreement: float | None
    method: str
    provider_confidences: dict[str, float | None]
    reconciliation_notes: list[str]
    quality: dict[str, Any]
    duration_ms: int | None
    links: dict[str, str]


class Tenants(Data):
    """Whose jobs the caller may see."""

    tenants: list[str]
    operator: bool


class HealthView(Data):
    """What a probe is told."""

    alive: bool
    ready: bool
    details: dict[str, str]


class ProblemView(Data):
    """An error (RFC 9457)."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str


def job_view(status: JobStatus, *, operator: bool = False) -> JobView:
    """A status with its steps in the order of the pipeline, those ahead included, and where to go from here. An
    operator's links say whose job it is.
    """
    known = {name: getattr(status, name) for name in JobStatus.model_fields}
    known |= {"steps": _steps(status), "stage": stage_of(status), "links": _links(status, operator=operator)}
    return JobView.model_construct(**known)


def stage_of(status: JobStatus) -> str | None:
    """The stage that has the job, or in which it failed; None when it is completed, or nobody knows."""
    if status.status == "failed":
        failed = [
            (step.finished_at or status.updated_at, name)
            for name, step in status.steps.items()
            if step.state == "failed"
        ]
        return max(failed)[1] if failed else None
    return _AT_WORK.get(status.status)


def _steps(status: JobStatus) -> dict[str, StepState]:
    """PostgreSQL's jsonb and a merged table keep no order; a page and its reader need one."""
    steps = dict(status.steps)
    if status.status not in TERMINAL:
        begun = {name.partition(".")[0] for name in steps}
        steps |= {name: StepState(state="waiting") for name in _PIPELINE if name not in begun}
    return dict(sorted(steps.items(), key=lambda item: (_place(item[0]), item[0])))


def _place(step: str) -> int:
    stage = step.partition(".")[0]
    return _PIPELINE.index(stage) if stage in _PIPELINE else len(_PIPELINE)


def _links(status: JobStatus, *, operator: bool) -> dict[str, str]:
    job, whose = f"/jobs/{quote(status.job_id)}", f"?tenant={quote(status.tenant_id)}" if operator else ""
    links = {name: f"{job}/{name}{whose}" for name in ("status", "events", "audio")}
    if status.status == "completed" or status.run > 1:
        links |= {"transcript": f"{job}/transcript{whose}", "raw": f"{job}/transcript/raw{whose}"}
    return links


async def page_body(page: Page, *, operator: bool = False) -> bytes:
    """A page as a `JobPage` in JSON, cut where it would be larger than `PAGE_BYTES`. Others have their turn of the
    event loop between its parts.
    """
    jobs: list[bytes] = []
    following, size = page.following, 0
    for status in page.jobs:
        body = job_view(status, operator=operator).model_dump_json().encode()
        size += len(body)
        if jobs and size > PAGE_BYTES:
            last = page.jobs[len(jobs) - 1]
            following = Cursor(last.created_at, last.job_id)
            break
        jobs.append(body)
        if len(jobs) % TURN == 0:
            await asyncio.sleep(0)
    cursor = orjson.dumps(encode_cursor(following) if following else None)
    return b'{"jobs":[' + b",".join(jobs) + b'],"next":' + cursor + b"}"


def transcript_view(transcript: Transcript, *, operator: bool = False) -> TranscriptView:
    """The row without what is ours: where its blobs lie."""
    job, whose = f"/jobs/{quote(transcript.job_id)}", f"tenant={quote(transcript.tenant_id)}" if operator else ""
    known = {name: getattr(transcript, name) for name in TranscriptView.model_fields if name != "links"}
    raw = f"{job}/transcript/raw?run={transcript.run}" + (f"&{whose}" if whose else "")
    links = {name: f"{job}/{name}" + (f"?{whose}" if whose else "") for name in ("status", "audio")} | {"raw": raw}
    return TranscriptView.model_construct(**known, links=links)


def health_view(health: Health) -> HealthView:
    """A check's result."""
    return HealthView(alive=health.alive, ready=health.ready, details=health.details)


def event(status: JobStatus | None, *, operator: bool = False) -> bytes:
    """A status as a server-sent event; None as a comment that keeps the connection open."""
    if status is None:
        return b": still here\n\n"
    body = job_view(status, operator=operator).model_dump_json().encode()
    return b"id: %d\nevent: status\ndata: %b\n\n" % (status.version, body)


def no_transcript(job: Job, run: int | None) -> str:
    """Why a job of the caller's own has none."""
    if run is not None and run > job.run:
        return f"the job has {job.run} runs"
    if job.status == "failed" and run in (None, job.run):
        return "there is no transcript: the run failed, see the job's status"
    return f"there is no transcript {'of this run' if run else 'yet'}: the job is {job.status}"


def encode_cursor(cursor: Cursor) -> str:
    """A cursor as one word for a URL."""
    return base64.urlsafe_b64encode(orjson.dumps([cursor.created_at, cursor.job_id])).decode().rstrip("=")


def decode_cursor(text: str) -> Cursor:
    """The inverse. No signature: nothing secret is in it, and row-level security decides what lies behind it."""
    try:
        at, job_id = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        created_at = datetime.fromisoformat(at)
        if created_at.tzinfo is None:
            raise ValueError("a time without a zone")
        return Cursor(created_at.astimezone(UTC), _NAME.validate_python(job_id, strict=True))
    except (ValueError, TypeError, OverflowError, binascii.Error, ValidationError):
        raise InvalidInput(
            "cursor: use `next` of an earlier answer as it stands, or leave it out to begin at the newest"
        ) from None


def job_name(text: str) -> str:
    """A job's id or reference as it may exist; one that cannot exist is as unknown as any other."""
    try:
        return _REFERENCE.validate_python(text)
    except ValidationError:
        raise NotFound(NO_JOB) from None


def tenant_name(text: str) -> str:
    """A tenant as it may exist."""
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        raise NotFound(NO_TENANT) from None


def wanted_page(query: Mapping[str, str]) -> dict[str, Any]:
    """Which page of a list is asked for, as `sinks.ports.reads.Reads.jobs` takes it."""
    return {
        "status": wanted_status(query.get("status")),
        "limit": wanted_number(query, "limit", MAX_PAGE, PAGE),
        "before": decode_cursor(query["cursor"]) if query.get("cursor") else None,
    }


def wanted_status(text: str | None) -> Status | None:
    """The `status` a list is to be narrowed to."""
    if text and text not in STATUSES:
        raise InvalidInput(f"status: use one of {', '.join(STATUSES)}, or leave it out")
    return text or None  # type: ignore[return-value]  # one of them, as just checked


def wanted_number(query: Mapping[str, str], name: str, highest: int, otherwise: int | None) -> int | None:
    """A whole number from 1 to `highest`, or `otherwise` when it is not given."""
    text = query.get(name, "")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= highest):
        raise InvalidInput(f"{name}: a whole number from 1 to {highest}, please")
    return int(text)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) that a Range header asks for; None for all of it.

    What is not understood, several ranges included, is ignored as RFC 9110 has it. A range behind the last byte gives
    an empty one, to be answered with 416.
    """
    unit, _, spec = (header or "").replace(" ", "").partition("=")
    first, dash, last = spec.partition("-")
    if unit.lower() != "bytes" or not dash or not _digits(first, last):
        return None
    if not first:
        return (max(size - int(last), 0), size) if int(last) else (size, size)
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    return (start, end) if start < size else (size, size)


def _digits(*texts: str) -> bool:
    return any(texts) and all(not text or (text.isascii() and text.isdigit() and len(text) < 20) for text in texts)
