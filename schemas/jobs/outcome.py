"""What handling one event came to: a value that a stage hands over and the database commits, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from schemas import ids, topics
from schemas.envelope import Envelope
from schemas.errors import ConcordError
from schemas.events.audio import AudioUploaded
from schemas.events.base import Data
from schemas.events.enrichment import EnrichmentFailed
from schemas.events.job import JobFailed, RunSweep, StepState
from schemas.ids import Key
from schemas.jobs.rows import EnrichmentState, File, Job, OfRun, ProviderRequest, Status, Transcript, Usage
from schemas.messages import Message

#: Seconds after which what a failed run left in storage is swept.
SWEEP_AFTER_S: Final = 3600.0


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
class EnrichmentChange:
    """A change of an enrichment's row, refused when the job's run is another or the enrichment has ended."""

    run: int
    kind: str
    state: EnrichmentState
    attempts: int = 0
    error: str | None = None
    code: str | None = None
    version: str | None = None
    result: dict[str, Any] | None = None
    #: An operator has started it again: it may have failed before.
    reopens: bool = False


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
    #: Kinds of enrichment that begin because this completes the run.
    new_enrichments: tuple[str, ...] = ()
    #: Of a run that has completed. An outcome with it changes nothing of the run.
    enrichment: EnrichmentChange | None = None
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


def failed_enrichment(
    whose: OfRun, kind: str, failure: Failure, *, version: str | None = None, reopens: bool = False
) -> Outcome:
    """An enrichment ends without a result; its run stays as it is."""
    failed = EnrichmentFailed(
        tenant_id=whose.tenant_id,
        job_id=whose.job_id,
        run=whose.run,
        kind=kind,
        version=version,
        code=failure.code,
        error=failure.reason,
        attempts=failure.attempts,
    )
    return Outcome(
        tenant_id=whose.tenant_id,
        job_id=whose.job_id,
        enrichment=EnrichmentChange(
            run=whose.run,
            kind=kind,
            state="failed",
            attempts=failure.attempts,
            error=failure.reason,
            code=failure.code,
            version=version,
            reopens=reopens,
        ),
        later=(Later(topics.ENRICHMENT_FAILED.name, failed),),
        audit="failed",
        error=failure.reason,
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
