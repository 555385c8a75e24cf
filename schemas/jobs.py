"""The job's state machine, pure: what a stage asks for (`Outcome`), what a job's rows are, and how one turns the other
(`advance`).

A database, real or double, locks the rows that a step concerns, calls `advance` and writes what comes back. So the
rules (versions only rise, a run ends once, only the claim's holder may write a request) stand here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from schemas import ids, topics
from schemas.errors import ConcordError, TooLarge
from schemas.events import (
    AsrDeadline,
    AsrResult,
    AudioUploaded,
    Data,
    JobEvent,
    JobFailed,
    JobStatus,
    Persisted,
    RunSweep,
    StepState,
)
from schemas.ids import Key
from schemas.messages import Envelope, Message, largest, message, size_of
from schemas.texts import ERROR_CHARS, readable

Status = Literal["uploaded", "transcribing", "reconciling", "persisting", "completed", "failed"]

#: Statuses in the order a run goes through them; "failed" may follow any of the first four.
ORDER: Final = ("uploaded", "transcribing", "reconciling", "persisting", "completed")
TERMINAL: Final = frozenset({"completed", "failed"})
#: Those of jobs that have not ended.
OPEN: Final = tuple(status for status in ORDER if status not in TERMINAL)

#: Seconds after which what a failed run left in storage is swept.
SWEEP_AFTER_S: Final = 3600.0

#: "intended": sent, or about to be, and its answer is not known. "parked": the same, and the provider's list does not
#: tell, so that a person has to decide.
RequestState = Literal["waiting", "intended", "parked", "submitted", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job's row: the truth about its current run."""

    tenant_id: str
    job_id: str
    #: The producer's own name for it; no other job of the tenant has it.
    reference: str | None = None
    run: int = 1
    status: Status = "uploaded"
    #: Rises with every change, over all runs.
    version: int = 1
    filename: str
    audio_uri: str
    #: Where Concord keeps the original; None until it is fetched.
    original_uri: str | None = None
    content_type: str | None = None
    duration_ms: int | None = None
    language: str = "auto"
    priority: int = 5
    options: dict[str, Any] = field(default_factory=dict)
    #: What the producer sent along. None in a row that was read, and written it changes nothing: it may be 850 kB, and
    #: `Database.metadata` has it for who needs it.
    metadata: dict[str, Any] | None = field(default_factory=dict)
    steps: dict[str, StepState] = field(default_factory=dict)
    reason: str | None = None
    #: Why it failed, for programs: a code of `schemas.errors`.
    code: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    #: Since when its recording waits for a place to be fetched; None when it does not.
    queued_at: datetime | None = None

    @property
    def key(self) -> Key:
        """What names it among all tenants' jobs."""
        return self.tenant_id, self.job_id

    @property
    def ended(self) -> bool:
        """Whether the run has had its terminal event."""
        return self.status in TERMINAL

    @property
    def audio_notes(self) -> tuple[str, ...]:
        """What intake found odd about the recording."""
        intake = self.steps.get("intake")
        return (intake.notes if intake else None) or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """The row that makes sure a recording is paid for once: one per (tenant, job, run, provider)."""

    tenant_id: str
    job_id: str
    run: int
    provider: str
    state: RequestState = "waiting"
    #: What the provider echoes, see `asr.protocols.Request.marker`.
    marker: str = ""
    #: The provider's own id, known from "submitted" on.
    provider_id: str | None = None
    #: Fencing token: rises with every claim; a write with an older one is refused.
    token: int = 0
    #: Until when the newest claim allows to send the request. Nothing is sent later; what was sent may arrive later.
    claimed_until: datetime | None = None
    hypothesis_uri: str | None = None
    confidence: float | None = None
    word_count: int | None = None
    language: str | None = None
    error: str | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    #: When it had to queue for a place among the requests under way, and when it got one.
    queued_at: datetime | None = None
    admitted_at: datetime | None = None
    #: Where the provider finds the audio, exactly as it is told; kept before it is told. May hold a signature.
    audio_url: str | None = field(default=None, repr=False)
    #: When that URL was made.
    audio_at: datetime | None = None
    #: When the run went on without the answer, although the provider may have the request: a later run takes it over.
    abandoned_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether the recognizer has answered, one way or the other."""
        return self.state in ("done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The row that people read."""

    tenant_id: str
    job_id: str
    run: int
    text: str
    words: int
    speakers: list[str]
    segments: list[dict[str, Any]]
    language: str | None
    confidence: float | None
    agreement: float | None
    method: str
    provider_confidences: dict[str, float | None]
    reconciliation_notes: list[str]
    quality: dict[str, Any]
    raw_transcript_uri: str
    agent_optimized_uri: str
    duration_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One blob of a job, as storage confirmed it."""

    tenant_id: str
    job_id: str
    run: int
    kind: str
    uri: str
    size_bytes: int
    content_type: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one request to a provider used up: tokens, seconds of audio, requests. Written again, it changes nothing."""

    tenant_id: str
    job_id: str
    run: int
    provider: str
    #: What is counted: "prompt_tokens", "audio_seconds", ...
    unit: str
    #: Names the request, so that each is counted once: the provider's own id where it gives one.
    ref: str
    quantity: float


class OfRun(Protocol):
    """Whatever belongs to a run of a job: a job's row, an event."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def job_id(self) -> str: ...

    @property
    def run(self) -> int: ...


class OfUnit(Protocol):
    """So much of one of a provider's units: of one request, or added up."""

    @property
    def provider(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def quantity(self) -> float: ...


def cost(of: OfUnit, prices: Mapping[str, float]) -> float | None:
    """In the currency of the prices, which are by `provider:unit`; None where the unit has none."""
    price = prices.get(f"{of.provider}:{of.unit}")
    return None if price is None else of.quantity * price


def used(whose: OfRun, provider: str, ref: str, amounts: Mapping[str, float]) -> tuple[Usage, ...]:
    """A row for each unit that a request used up; what a provider says that is no amount counts as none."""
    return tuple(
        Usage(
            tenant_id=whose.tenant_id,
            job_id=whose.job_id,
            run=whose.run,
            provider=provider,
            unit=unit,
            ref=ref,
            quantity=float(quantity) if 0 <= quantity < math.inf else 0.0,
        )
        for unit, quantity in amounts.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjudication:
    """A judge's answer about one disputed span. An answer serves every job of the tenant that asks the same; a fault
    only tells its own run not to ask again.
    """

    tenant_id: str
    #: `schemas.words.Question.id`
    question: str
    job_id: str
    run: int
    adjudicator: str
    #: Index of the chosen reading; None for "neither", or for no usable answer.
    choice: int | None
    #: Why there is no usable answer.
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """An event to be published: now, or after `seconds`."""

    topic: str
    data: Data
    seconds: float = 0.0
    #: CloudEvents type where it differs from the topic's name.
    kind: str | None = None
    #: Distinguishes several events of one type from one cause; part of the derived id.
    index: int | str = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A change of a job's row by one stage; refused when the run is another or has ended."""

    run: int
    status: Status | None = None
    step: StepState | None = None
    #: Name of the stage whose step state this is.
    stage: str = ""
    reason: str | None = None
    #: Other columns, by name.
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestChange:
    """A change of a provider request's row, refused when `token` is not the newest claim's."""

    run: int
    provider: str
    token: int | None
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What handling one event came to. Nothing of it has happened until the database has committed it, whole."""

    tenant_id: str | None = None
    job_id: str | None = None
    #: The run that this is about, if it is to be refused when the job is past it.
    run: int | None = None
    #: A job that begins; if it exists already, the whole outcome is a repeat and changes nothing.
    create: Job | None = None
    #: A new run of a job that has ended; refused unless the last run is `begin.run - 1` and ended.
    begin: Job | None = None
    progress: Progress | None = None
    request: RequestChange | None = None
    new_requests: tuple[ProviderRequest, ...] = ()
    #: Every request of this run that has not ended fails with this reason.
    give_up: str | None = None
    transcript: Transcript | None = None
    files: tuple[File, ...] = ()
    usage: tuple[Usage, ...] = ()
    later: tuple[Later, ...] = ()
    #: Messages as they are: retries and dead letters. Published even when the rest is refused as a repeat.
    raw: tuple[tuple[Message, float], ...] = ()
    #: Becomes of it instead, besides `raw`, if the job to be created has the reference of another job of its tenant.
    taken: Outcome | None = None
    #: Whether the event counts as handled. Only one that came to nothing may not: if it is about a run that is not
    #: known, which after a restore is read again before the upload that makes its job.
    remembered: bool = True
    #: What the audit log says: started, completed, failed, retried, repeated, refused.
    audit: str = "completed"
    error: str | None = None

    @property
    def key(self) -> Key | None:
        """The job that this is about; None if it is about none."""
        return (self.tenant_id, self.job_id) if self.tenant_id is not None and self.job_id is not None else None


NOTHING: Final = Outcome(audit="")
IGNORED: Final = Outcome(audit="", remembered=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event will not be handled."""

    #: For people; readable text (`schemas.texts.readable`).
    reason: str
    #: For programs: a code of `schemas.errors`.
    code: str = ConcordError.code
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One handled event on its way into the database."""

    stage: str
    event_id: UUID
    outcome: Outcome
    envelope: Envelope | None = None
    #: Seconds the handler took.
    seconds: float = 0.0
    #: What is committed in its place when the database refuses it for good; it is simpler. None: there is no less.
    otherwise: Callable[[Exception], Step] | None = field(default=None, compare=False)


@dataclass(slots=True)
class Rows:
    """What a step may see and change of one job, locked: its row and its run's provider requests by recognizer."""

    job: Job | None
    requests: dict[str, ProviderRequest]
    #: The other job of the tenant that has the reference of the job to be created.
    namesake: Job | None = None


@dataclass(slots=True)
class Written:
    """What one step writes, besides the rows it advanced. `applied` is False for a repeat or a late-comer."""

    applied: bool = True
    #: The event is not done and may come again: its run is not known, or another worker has claimed the request since.
    forgotten: bool = False
    transcript: Transcript | None = None
    files: tuple[File, ...] = ()
    usage: tuple[Usage, ...] = ()
    #: (message, seconds until it is due)
    messages: list[tuple[Message, float]] = field(default_factory=list)
    #: Ids of scheduled events that have lost their purpose.
    cancelled: list[UUID] = field(default_factory=list)


def deadline_id(tenant_id: str, job_id: str, run: int) -> UUID:
    """The id of the event that ends a run's wait for its recognizers, so that it can be taken back."""
    return ids.ingress_id(tenant_id, "deadline", f"{job_id}/{run}")


def advance(step: Step, rows: Rows, now: datetime) -> Written:
    """Apply one step to the rows of its job (in place) and say what else it writes.

    A step whose guard does not hold is not an error: someone else did the work, or the run is over. It writes nothing
    but what must not be lost (dead letters and retries). A step with an event that is too large to be published ends
    its run instead.
    """
    before, requests, namesake = rows.job, dict(rows.requests), rows.namesake
    written = _advance(step, rows, now)
    events = (sent for sent, _ in written.messages[len(step.outcome.raw) :])
    oversized = next((sent for sent in events if size_of(sent) > largest(sent.topic)), None)
    job = step.outcome.create or step.outcome.begin or before
    if oversized is None or job is None:
        return written
    rows.job, rows.namesake = before, namesake
    rows.requests.clear()
    rows.requests.update(requests)
    return _advance(replace(step, outcome=_too_large(step, job, oversized)), rows, now)


def _too_large(step: Step, job: Job, oversized: Message) -> Outcome:
    """The step's outcome without its events: the run ends, and what it has cost stays known."""
    reason = f"{oversized.topic}: its event has {size_of(oversized)} bytes, which is too large to be published"
    failure = Failure(reason, TooLarge.code, step.envelope.attempt + 1 if step.envelope else 1)
    request = step.outcome.request
    if request is not None and request.columns.get("state") in ("done", "failed"):
        request = None  # its end would send the run on
    return replace(
        step.outcome,
        progress=failed_progress(job.run, step.stage, failure),
        request=request,
        new_requests=(),
        give_up=None,
        transcript=None,
        later=end_of_failed(job, step.stage, failure),
        audit="failed",
        error=reason,
    )


def failed_progress(run: int, stage: str, failure: Failure) -> Progress:
    """The run has failed at this stage."""
    step = StepState(state="failed", attempts=failure.attempts, error=failure.reason)
    return Progress(
        run=run, status="failed", stage=stage, step=step, reason=failure.reason, columns={"code": failure.code}
    )


def end_of_failed(whose: OfRun, stage: str, failure: Failure) -> tuple[Later, ...]:
    """The terminal event of a failed run, and the sweep that follows."""
    run: dict[str, Any] = {"tenant_id": whose.tenant_id, "job_id": whose.job_id, "run": whose.run}
    ended = JobFailed(**run, stage=stage, code=failure.code, error=failure.reason, attempts=failure.attempts)
    return (
        Later(topics.FAILED.name, ended),
        Later(topics.PERSIST_DUE.name, RunSweep(**run), seconds=SWEEP_AFTER_S, kind="run.sweep"),
    )


def id_of_upload(upload: AudioUploaded, root: UUID) -> str:
    """The id of an upload's job: its own, or derived from its reference, or from its event, `root`."""
    if upload.job_id is not None:
        return upload.job_id
    if upload.reference is not None:
        return ids.job_of_reference(upload.tenant_id, upload.reference)
    return ids.job_of_event(upload.tenant_id, root)


def failed_upload(job: Job, stage: str, failure: Failure) -> Outcome:
    """A job that is created as failed, so that whoever asks is told."""
    step = StepState(state="failed", attempts=failure.attempts, error=failure.reason)
    return Outcome(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        create=replace(job, status="failed", reason=failure.reason, code=failure.code, steps={stage: step}),
        later=end_of_failed(job, stage, failure),
        audit="failed",
        error=failure.reason,
    )


def _advance(step: Step, rows: Rows, now: datetime) -> Written:
    outcome = step.outcome
    written = Written(messages=list(outcome.raw))
    if outcome.key is None:
        _publish(step, written, None, now)
        return written
    before = rows.job
    if outcome.taken is not None and before is None and rows.namesake is not None:
        rows.namesake = None
        other = _advance(replace(step, outcome=outcome.taken), rows, now)
        other.messages[:0] = written.messages
        return other
    if not _guards_hold(outcome, rows):
        written.applied = False
        written.forgotten = _fenced(outcome, rows) or _unknown(outcome, rows.job)
        return written
    _change_job(step, rows, now)
    results = _change_requests(outcome, rows, now)
    _publish(step, written, rows.job, now)
    _announce_results(step, rows, results, written, now)
    if rows.job is not None and rows.job.ended:
        _leave_requests(rows, rows.job, now)
    written.transcript, written.files, written.usage = outcome.transcript, outcome.files, outcome.usage
    if rows.job is not None and rows.job != before:
        rows.job = replace(rows.job, version=before.version + 1 if before else 1, updated_at=now)
        written.messages.append((_status_message(step, rows.job, now), 0.0))
        if rows.job.ended:
            written.cancelled.append(deadline_id(rows.job.tenant_id, rows.job.job_id, rows.job.run))
    else:
        rows.job = before  # equal, but another object: nothing to write
    return written


def _guards_hold(outcome: Outcome, rows: Rows) -> bool:
    job = rows.job
    if outcome.create is not None:
        return job is None and rows.namesake is None
    if job is None:
        return False
    if outcome.begin is not None:
        return job.ended and job.run + 1 == outcome.begin.run
    if outcome.run is not None and (job.run != outcome.run or job.ended):
        return False
    if outcome.new_requests and job.status != "uploaded":
        return False  # the run has its requests, some of which may be paid for
    return _progress_allowed(outcome.progress, job) and _request_allowed(outcome, job, rows)


def _progress_allowed(progress: Progress | None, job: Job) -> bool:
    if progress is None:
        return True
    if job.run != progress.run or job.ended:
        return False
    if progress.status is None or progress.status == "failed":
        return True
    return ORDER.index(progress.status) >= ORDER.index(job.status)


def _request_allowed(outcome: Outcome, job: Job, rows: Rows) -> bool:
    change = outcome.request
    if change is None:
        return True
    row = rows.requests.get(change.provider)
    if row is None or row.run != change.run or row.ended or job.run != change.run or job.ended:
        return False
    return change.token is None or change.token == row.token


def _fenced(outcome: Outcome, rows: Rows) -> bool:
    change = outcome.request
    row = rows.requests.get(change.provider) if change else None
    return bool(change and row and change.token is not None and change.token < row.token and not row.ended)


def _unknown(outcome: Outcome, job: Job | None) -> bool:
    """Whether this is about a run that is not there. What is published all the same would be published again."""
    if outcome.create is not None or outcome.raw:
        return False
    runs = [part.run for part in (outcome, outcome.progress, outcome.request) if part is not None]
    return job is None or any(run is not None and run > job.run for run in runs)


def _change_job(step: Step, rows: Rows, now: datetime) -> None:
    outcome = step.outcome
    begun = outcome.create or outcome.begin
    if begun is not None:
        rows.job = replace(
            begun,
            version=rows.job.version if rows.job else 1,
            created_at=rows.job.created_at if rows.job else now,
            completed_at=now if begun.ended else None,
            steps={name: _merged(None, state, now, step.seconds) for name, state in begun.steps.items()},
        )
        if outcome.begin is not None:
            rows.requests.clear()
    for request in outcome.new_requests:
        rows.requests[request.provider] = request
    if outcome.new_requests and rows.job is not None:
        awaited = {f"transcribe.{r.provider}": _AWAITED[r.ended] for r in outcome.new_requests}
        rows.job = replace(rows.job, steps=rows.job.steps | awaited)
    progress, job = outcome.progress, rows.job
    if progress is None or job is None:
        return
    columns = dict(progress.columns)
    if progress.status is not None:
        columns["status"] = progress.status
        if progress.status in TERMINAL:
            columns["completed_at"] = now
    if progress.step is not None:
        columns["steps"] = job.steps | {
            progress.stage: _merged(job.steps.get(progress.stage), progress.step, now, step.seconds)
        }
    if progress.reason is not None:
        columns["reason"] = readable(progress.reason, ERROR_CHARS)
    rows.job = replace(job, **columns)


#: How a recognizer's step begins: waiting, or with an earlier run's answer.
_AWAITED: Final = {False: StepState(state="waiting"), True: StepState(state="done", progress=1.0)}


def _merged(old: StepState | None, new: StepState, now: datetime, seconds: float) -> StepState:
    """The step's new state, with times: it began at its first event, or `seconds` ago with this one."""
    ended = new.state in ("done", "failed")
    return new.model_copy(
        update={
            "started_at": (old.started_at if old else None) or now - timedelta(seconds=seconds),
            "finished_at": now if ended else None,
            "attempts": max(new.attempts, old.attempts if old else 0),
        }
    )


def _change_requests(outcome: Outcome, rows: Rows, now: datetime) -> list[ProviderRequest]:
    """Apply the changes of provider requests; the ones that ended by it."""
    ended = []
    if outcome.request is not None:
        before = rows.requests[outcome.request.provider]
        row = replace(before, **_bounded(outcome.request.columns))
        row = replace(row, finished_at=now) if row.ended else row
        row = replace(row, submitted_at=now) if row.state == "submitted" != before.state else row
        rows.requests[row.provider] = row
        ended += [row] if row.ended else []
    if outcome.give_up is not None:
        for row in [r for r in rows.requests.values() if not r.ended]:
            row = _abandoned(row, outcome.give_up, now)
            rows.requests[row.provider] = row
            ended.append(row)
    return ended


def _bounded(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A request's columns with a provider's words cut to what an event has room for."""
    longest = {"error": ERROR_CHARS, "language": 100}
    return {
        name: readable(value, longest[name]) if name in longest and value is not None else value
        for name, value in columns.items()
    }


def _leave_requests(rows: Rows, job: Job, now: datetime) -> None:
    """A run that has ended waits for no answer, and its requests hold no places any more."""
    for row in [r for r in rows.requests.values() if not r.ended]:
        rows.requests[row.provider] = _abandoned(row, job.reason or f"the run has {job.status}", now)


def _abandoned(row: ProviderRequest, reason: str, now: datetime) -> ProviderRequest:
    """The request as it ends when its run waits no longer. Of a parked one its own reason is kept, too."""
    error = readable(f"{reason}: {row.error}", ERROR_CHARS) if row.state == "parked" else reason
    left = now if row.state != "waiting" else None
    return replace(row, state="failed", error=error, finished_at=now, abandoned_at=left)


def _announce_results(step: Step, rows: Rows, results: list[ProviderRequest], written: Written, now: datetime) -> None:
    """`asr.results` for every request that ended; with the last of a run, the job goes on to be reconciled."""
    if not results or rows.job is None:
        return
    waiting = sum(not r.ended for r in rows.requests.values())
    for index, row in enumerate(results):
        remaining = waiting + len(results) - 1 - index
        data = _result(row, rows.job, remaining)
        result = Later(topics.RESULTS.name, data, index=row.provider)
        written.messages.append((_message(step, result, rows.job, now), 0.0))
        stage = f"transcribe.{row.provider}"
        state = StepState(
            state="done" if row.state == "done" else "failed",
            error=row.error,
            progress=1.0 if row.state == "done" else None,
        )
        steps = rows.job.steps | {stage: _merged(rows.job.steps.get(stage), state, now, step.seconds)}
        rows.job = replace(rows.job, steps=steps)
    if not waiting:
        rows.job = replace(rows.job, status="reconciling")
        written.cancelled.append(deadline_id(rows.job.tenant_id, rows.job.job_id, rows.job.run))


def _result(row: ProviderRequest, job: Job, remaining: int) -> AsrResult:
    return AsrResult(
        tenant_id=row.tenant_id,
        job_id=row.job_id,
        run=row.run,
        provider=row.provider,
        status="ok" if row.state == "done" else "failed",
        hypothesis_uri=row.hypothesis_uri,
        confidence=row.confidence,
        word_count=row.word_count,
        duration_ms=job.duration_ms,
        language=row.language,
        error=row.error,
        remaining=remaining,
    )


def _publish(step: Step, written: Written, job: Job | None, now: datetime) -> None:
    written.messages += [(_message(step, later, job, now), later.seconds) for later in step.outcome.later]


def _message(step: Step, later: Later, job: Job | None, now: datetime) -> Message:
    data = _completed(later.data, job, now)
    match data:
        case AsrDeadline(extended=0):
            id = deadline_id(data.tenant_id, data.job_id, data.run)
        case Persisted() | JobFailed():
            id = ids.terminal_id(data.tenant_id, data.job_id, data.run, later.topic)
        case _:
            id = ids.event_id(step.event_id, step.stage, f"{later.kind or later.topic}/{later.index}")
    return message(later.topic, data, id=id, now=now, cause=step.envelope, kind=later.kind, attempt=later.attempt)


def _completed(data: Data, job: Job | None, now: datetime) -> Data:
    """An event's data with what is known here only: the time of the commit, and the producer's name for the job."""
    known: dict[str, Any] = {}
    if isinstance(data, JobEvent) and job is not None:
        known["reference"] = job.reference
    if isinstance(data, Persisted):
        known["completed_at"] = now
    if isinstance(data, JobFailed):
        known["failed_at"] = now
    return data.model_copy(update=known) if known else data


def _status_message(step: Step, job: Job, now: datetime) -> Message:
    sent = _message(step, Later(topics.STATUS.name, status_of(job), index=job.version), job, now)
    if size_of(sent) <= largest(sent.topic):
        return sent
    # Hundreds of steps with long errors. Where the job stands must be told all the same.
    steps = {name: state.model_copy(update={"error": None}) for name, state in job.steps.items()}
    status = status_of(replace(job, steps=steps))
    return _message(step, Later(topics.STATUS.name, status, index=job.version), job, now)


#: Share of the way that a job in each status has gone.
_SHARE: Final = {
    "uploaded": 0.05,
    "transcribing": 0.1,
    "reconciling": 0.8,
    "persisting": 0.9,
    "completed": 1.0,
    "failed": 1.0,
}


#: For a job that no database has seen yet.
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


#: When a job was created, and its version: what makes one status of a job newer than another. Versions start anew when
#: a job is deleted and its id used again.
StatusVersion = tuple[datetime, int]


def status_version(status: JobStatus) -> StatusVersion:
    """How new a status is."""
    return status.created_at, status.version


def status_of(job: Job) -> JobStatus:
    """The published view of a job's row."""
    share = _SHARE[job.status]
    heard = [s.progress or 0.0 for name, s in job.steps.items() if name.startswith("transcribe.")]
    if job.status == "transcribing" and heard:
        share += 0.7 * sum(heard) / len(heard)
    return JobStatus(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        reference=job.reference,
        run=job.run,
        status=job.status,
        version=job.version,
        filename=job.filename,
        steps=job.steps,
        progress=round(share, 3),
        reason=job.reason,
        code=job.code,
        created_at=job.created_at or _NEVER,
        updated_at=job.updated_at or _NEVER,
        completed_at=job.completed_at,
    )
