"""The outcome of handling one event: a value that a stage returns and the database commits atomically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from schemas import ids, topics
from schemas.corrections.rows import ReviewItem, TranscriptEdit
from schemas.corrections.voices import SpeakerVoice
from schemas.envelope import Envelope
from schemas.errors import ConcordError
from schemas.events.audio import AudioUploaded
from schemas.events.base import Data
from schemas.events.enrichment import EnrichmentFailed
from schemas.events.job import EnrichmentState, JobFailed, RunSweep, StepState
from schemas.ids import Key
from schemas.jobs.rows import AuditEntry, File, Job, OfRun, ProviderRequest, Status, Transcript, Usage, run_fields
from schemas.mail.rows import Mail
from schemas.messages import Message
from schemas.search.chunks import TranscriptIndex
from schemas.summaries import SummaryItem

#: Seconds from the failure of a run to the deletion of its blobs.
SWEEP_AFTER_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Later:
    """An event to be published after `seconds`; 0 is immediately."""

    topic: str
    data: Data
    seconds: float = 0.0
    #: CloudEvents type where it differs from the topic's name.
    kind: str | None = None
    #: Distinguishes events of one type with one cause; a part of the derived id.
    index: int | str = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A change of a job's row by one stage; refused if the job is in another run or the run has ended."""

    run: int
    status: Status | None = None
    step: StepState | None = None
    #: Name of the stage to which `step` belongs.
    stage: str = ""
    reason: str | None = None
    #: Other columns, by name.
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestChange:
    """A change of a provider request's row; refused if `token` is not that of the newest claim."""

    run: int
    provider: str
    token: int | None
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichmentChange:
    """A change of an enrichment's row; refused if the job is in another run or the enrichment has ended."""

    run: int
    kind: str
    state: EnrichmentState
    attempts: int = 0
    error: str | None = None
    code: str | None = None
    version: str | None = None
    #: The version of the transcript that it is made from: refused if an edit has made another since.
    transcript_version: int = 1
    result: dict[str, Any] | None = None
    #: An operator restarts it: the change is allowed if it has failed.
    reopens: bool = False
    #: How often it was begun of this version of the transcript: refused if it has begun again since.
    generation: int = 1
    #: It begins, for the first time or again, with the next generation: the change is allowed unless it is being made.
    begins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of handling one event. It takes effect only when the database commits it, as a whole."""

    tenant_id: str | None = None
    job_id: str | None = None
    #: The run that it belongs to; if set, the outcome is refused when the job is in another run or that run has ended.
    run: int | None = None
    #: A job to create. If it exists, the outcome is a duplicate and changes nothing.
    create: Job | None = None
    #: A new run of a job; refused unless the last run is `begin.run - 1` and has ended.
    begin: Job | None = None
    progress: Progress | None = None
    request: RequestChange | None = None
    new_requests: tuple[ProviderRequest, ...] = ()
    #: If set, all requests of the run that have not ended fail with this reason.
    give_up: str | None = None
    transcript: Transcript | None = None
    #: Kinds of enrichment to create when this outcome completes the run.
    new_enrichments: tuple[str, ...] = ()
    #: A new version of the transcript of a completed run, made by a person.
    edit: TranscriptEdit | None = None
    #: Disputed spans of the transcript, for reviewers.
    review: tuple[ReviewItem, ...] = ()
    #: What the speakers sound like: kept if the tenant allows that when the outcome is committed.
    voices: tuple[SpeakerVoice, ...] = ()
    #: A change of an enrichment of a completed run. An outcome with it does not change the run.
    enrichment: EnrichmentChange | None = None
    #: The items of its summary, which replace those of an earlier one.
    summary_items: tuple[SummaryItem, ...] | None = None
    #: The search index of the transcript, which replaces that of earlier versions and runs.
    index: TranscriptIndex | None = None
    #: The mail that the enrichment which begins is to send, in place of one that has ended.
    mail: Mail | None = None
    files: tuple[File, ...] = ()
    usage: tuple[Usage, ...] = ()
    later: tuple[Later, ...] = ()
    #: Encoded messages (retries, dead letters) and their delays in seconds. Published even if the rest is refused.
    raw: tuple[tuple[Message, float], ...] = ()
    #: Replaces this outcome, except for `raw`, if another job of the tenant has the reference of the job to create.
    taken: Outcome | None = None
    #: Whether the event is recorded as handled. It is not if its run is unknown: after a restore the event is read
    #: before the upload that creates the job, and must be handled then.
    remembered: bool = True
    #: The entry in the audit log: started, completed, failed, retried, repeated or refused; empty for none.
    audit: str = "completed"
    error: str | None = None
    #: Who asked for it, where a person did; for the audit log.
    author: str | None = None

    @property
    def key(self) -> Key | None:
        """The job that it belongs to, or None."""
        return (self.tenant_id, self.job_id) if self.tenant_id is not None and self.job_id is not None else None


#: Changes nothing; the event is recorded as handled.
NOTHING: Final = Outcome(audit="")


#: Changes nothing; the event is not recorded, and is handled if it is read again.
IGNORED: Final = Outcome(audit="", remembered=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why an event is not handled."""

    #: Message for people, cleaned by `schemas.texts.readable`.
    reason: str
    #: Error code for programs, of `schemas.errors`.
    code: str = ConcordError.code
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """A handled event with its outcome, to be committed to the database."""

    stage: str
    event_id: UUID
    outcome: Outcome
    envelope: Envelope | None = None
    #: Duration of the handler in seconds.
    seconds: float = 0.0
    #: Returns a simpler step to commit if the database refuses this one permanently; None if there is no simpler one.
    otherwise: Callable[[Exception], Step] | None = field(default=None, compare=False)


def audit_entry(step: Step, job: Job | None, *, applied: bool) -> AuditEntry | None:
    """What the audit log keeps of a step, if anything; `job` is its job, `applied` whether it has changed that."""
    if job is None or not step.outcome.audit:
        return None
    return AuditEntry(
        **run_fields(job),
        step=job.step_of(step.stage),
        what=step.outcome.audit if applied else "repeated",
        duration_ms=step.seconds * 1000,
        attempt=step.envelope.attempt if step.envelope else 0,
        error=step.outcome.error,
        author=step.outcome.author,
    )


def failed_progress(run: int, stage: str, failure: Failure) -> Progress:
    """The change of the job's row when its run fails in this stage."""
    step = StepState(state="failed", attempts=failure.attempts, error=failure.reason)
    return Progress(
        run=run, status="failed", stage=stage, step=step, reason=failure.reason, columns={"code": failure.code}
    )


def end_of_failed(owner: OfRun, stage: str, failure: Failure) -> tuple[Later, ...]:
    """The terminal event of a failed run, and the event that later deletes its blobs."""
    run = run_fields(owner)
    event = JobFailed(**run, stage=stage, code=failure.code, error=failure.reason, attempts=failure.attempts)
    return (
        Later(topics.FAILED.name, event),
        sweep(owner),
    )


def sweep(owner: OfRun) -> Later:
    """The event that deletes, later, what the ended run may not keep."""
    return Later(topics.PERSIST_DUE.name, RunSweep(**run_fields(owner)), seconds=SWEEP_AFTER_S, kind="run.sweep")


def failed_enrichment(
    owner: OfRun,
    kind: str,
    failure: Failure,
    *,
    version: str | None = None,
    transcript_version: int = 1,
    generation: int = 1,
    reopens: bool = False,
) -> Outcome:
    """The outcome that ends an enrichment without a result; its run does not change."""
    event = EnrichmentFailed(
        **run_fields(owner),
        kind=kind,
        version=version,
        transcript_version=transcript_version,
        generation=generation,
        code=failure.code,
        error=failure.reason,
        attempts=failure.attempts,
    )
    return Outcome(
        tenant_id=owner.tenant_id,
        job_id=owner.job_id,
        enrichment=EnrichmentChange(
            run=owner.run,
            kind=kind,
            state="failed",
            attempts=failure.attempts,
            error=failure.reason,
            code=failure.code,
            version=version,
            transcript_version=transcript_version,
            generation=generation,
            reopens=reopens,
        ),
        later=(Later(topics.ENRICHMENT_FAILED.name, event),),
        audit="failed",
        error=failure.reason,
    )


def id_of_upload(upload: AudioUploaded, root: UUID) -> str:
    """The job id of an upload: its own, or derived from its reference, or from its original event, `root`."""
    if upload.job_id is not None:
        return upload.job_id
    if upload.reference is not None:
        return ids.job_of_reference(upload.tenant_id, upload.reference)
    return ids.job_of_event(upload.tenant_id, root)


def failed_upload(job: Job, stage: str, failure: Failure) -> Outcome:
    """The outcome that creates a job as failed, so that its status and reason can be queried."""
    step = StepState(state="failed", attempts=failure.attempts, error=failure.reason)
    return Outcome(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        create=replace(job, status="failed", reason=failure.reason, code=failure.code, steps={stage: step}),
        later=end_of_failed(job, stage, failure),
        audit="failed",
        error=failure.reason,
    )
