"""The database rows of a job: the job, its provider requests, transcript, files, usage and audit entries."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from schemas.conversations.names import FETCH, conversation_of
from schemas.events.job import EnrichmentState, EnrichmentStatus, StepState
from schemas.ids import Key
from schemas.words import Hypothesis

Status = Literal["uploaded", "transcribing", "reconciling", "persisting", "completed", "failed"]


#: Statuses in the order a run goes through them; "failed" may follow any of the first four.
ORDER: Final = ("uploaded", "transcribing", "reconciling", "persisting", "completed")


TERMINAL: Final = frozenset({"completed", "failed"})


#: Those of jobs that have not ended.
OPEN: Final = tuple(status for status in ORDER if status not in TERMINAL)

#: The stage that works on a job, by the job's status; so also the order of a run's stages. Recognizers share one.
STAGE_OF: Final[dict[Status, str]] = {
    "uploaded": "intake",
    "transcribing": "transcribe",
    "reconciling": "reconcile",
    "persisting": "persist",
}


def stages_of(steps: Container[str]) -> dict[Status, str]:
    """By a job's status, the stage that works on it, in the order of a run. `steps` are those of the job, by which a
    conversation is told from an upload.
    """
    return STAGE_OF | {"uploaded": FETCH} if FETCH in steps else {**STAGE_OF}


#: "intended": sent or about to be sent; the response is not known. "parked": the same, and the provider's list of
#: requests does not tell whether it was accepted, so that an operator has to decide.
RequestState = Literal["waiting", "intended", "parked", "submitted", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job's row: the state of its current run."""

    tenant_id: str
    job_id: str
    #: The producer's own name for the job, unique within the tenant.
    reference: str | None = None
    run: int = 1
    status: Status = "uploaded"
    #: Increases with every change, across all runs.
    version: int = 1
    filename: str
    audio_uri: str
    #: URI of the recording in Concord's own storage; None until it is fetched.
    original_uri: str | None = None
    content_type: str | None = None
    duration_ms: int | None = None
    language: str = "auto"
    priority: int = 5
    options: dict[str, Any] = field(default_factory=dict)
    #: The producer's own data. Rows that are read have None here, which a write leaves unchanged: it may be 850 kB, and
    #: is read separately (`Jobs.metadata`).
    metadata: dict[str, Any] | None = field(default_factory=dict)
    steps: dict[str, StepState] = field(default_factory=dict)
    #: Enrichments of the current run, by kind: the published view of its `Enrichment` rows.
    enrichment: dict[str, EnrichmentStatus] = field(default_factory=dict)
    #: Version of the current run's transcript; each edit makes the next.
    transcript_version: int = 1
    reason: str | None = None
    #: Error code for programs if it failed, of `schemas.errors`.
    code: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    #: Before when its run must not begin, as the upload says.
    not_before: datetime | None = None
    #: From when on its recording waits for a slot to be fetched; None if it does not wait.
    queued_at: datetime | None = None

    @property
    def key(self) -> Key:
        """Identifies the job among those of all tenants."""
        return self.tenant_id, self.job_id

    @property
    def ended(self) -> bool:
        """Whether the run has ended, with a terminal event."""
        return self.status in TERMINAL

    @property
    def is_queued(self) -> bool:
        """Whether nothing is done for its run yet: it waits until it is admitted."""
        return self.status == "uploaded" and self.queued_at is not None

    @property
    def is_redacted(self) -> bool:
        """Whether personal data are hidden from its readers."""
        return bool(self.options.get("redact_pii"))

    @property
    def first_stage(self) -> str:
        """The stage with which its runs begin: of a conversation, the one that fetches it."""
        return STAGE_OF["uploaded"] if conversation_of(self) is None else FETCH

    def step_of(self, stage: str) -> str:
        """The name of this stage's step. Intake begins the later runs of conversations, too, whose step is fetch."""
        return self.first_stage if stage == STAGE_OF["uploaded"] else stage

    @property
    def is_diarized(self) -> bool:
        """Whether its words have speakers."""
        return bool(self.options.get("diarize"))

    @property
    def audio_notes(self) -> tuple[str, ...]:
        """Notes of its first stage about the recording."""
        first = self.steps.get(self.first_stage)
        return (first.notes if first else None) or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """The row that ensures that a recording is submitted and billed once: one per (tenant, job, run, provider)."""

    tenant_id: str
    job_id: str
    run: int
    provider: str
    state: RequestState = "waiting"
    #: Marker that the provider returns in its list of requests, see `asr.protocols.Request.marker`.
    marker: str = ""
    #: The provider's own id; set from state "submitted" on.
    provider_id: str | None = None
    #: Fencing token: increases with every claim; a write with an older one is refused.
    token: int = 0
    #: Until when the newest claim permits sending the request. A request that was sent in time may arrive later.
    claimed_until: datetime | None = None
    #: None in state "done": the recognizer was left out, `error` says why.
    hypothesis_uri: str | None = None
    confidence: float | None = None
    word_count: int | None = None
    language: str | None = None
    error: str | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    #: When it was queued for a slot among the concurrent requests, and when it got one.
    queued_at: datetime | None = None
    admitted_at: datetime | None = None
    #: URL of the audio exactly as sent to the provider; stored before it is sent. May contain a signature.
    audio_url: str | None = field(default=None, repr=False)
    #: When that URL was created.
    audio_at: datetime | None = None
    #: When the run continued without the result although the provider may have the request: a later run takes it over.
    abandoned_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether the request has a final result or failure."""
        return self.state in ("done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The transcript of a run, as the API returns it."""

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
    #: 1 as the run made it; each edit makes the next.
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrichment:
    """One enrichment of a run's transcript; see `schemas.jobs.enrichment`."""

    tenant_id: str
    job_id: str
    run: int
    kind: str
    state: EnrichmentState = "pending"
    attempts: int = 0
    error: str | None = None
    #: Error code for programs if it failed: of `schemas.errors`, "superseded" or "stuck".
    code: str | None = None
    #: Version of the template, prompt or program that creates it.
    version: str | None = None
    #: Version of the transcript that it is, or will be, made from. Until it is done again, `result` is the last one's.
    transcript_version: int = 1
    #: How often it was begun of that version.
    generation: int = 1
    #: The small parts of the result, and URIs of the others.
    result: dict[str, Any] | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether it is done or has failed."""
        return self.state in ("done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One blob of a job, as the store confirmed it."""

    tenant_id: str
    job_id: str
    run: int
    kind: str
    uri: str
    size_bytes: int
    content_type: str
    sha256: str


def file_kind(kind: str, version: int) -> str:
    """The kind of a file of one version of the transcript. Files of all versions stay until the job is deleted."""
    return kind if version == 1 else f"{kind}.v{version}"


def newest_file(files: Iterable[File], kind: str, run: int, version: int) -> File | None:
    """The file of this kind of the newest version of a run's transcript that has one, up to this version."""
    of_run = {file.kind: file for file in files if file.run == run}
    kinds = (file_kind(kind, number) for number in range(version, 0, -1))
    return next((of_run[name] for name in kinds if name in of_run), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Usage of one request to a provider: tokens, seconds of audio, requests. Repeated writes have no effect."""

    tenant_id: str
    job_id: str
    run: int
    provider: str
    #: Unit of the quantity: "prompt_tokens", "audio_seconds", ...
    unit: str
    #: Identifies the request, so that it is counted once: the provider's own id if it has one.
    ref: str
    quantity: float


class OfRun(Protocol):
    """Anything that belongs to a run of a job, such as a row or an event."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def job_id(self) -> str: ...

    @property
    def run(self) -> int: ...


def answer_columns(hypothesis: Hypothesis, uri: str) -> dict[str, Any]:
    """The columns of a recognizer's request whose hypothesis is stored at `uri`."""
    return {
        "state": "done",
        "hypothesis_uri": uri,
        "confidence": hypothesis.confidence,
        "word_count": len(hypothesis.words),
        "language": hypothesis.language,
    }


def run_fields(owner: OfRun) -> dict[str, Any]:
    """The fields that name the run of a row or an event, as keyword arguments for others of the same run."""
    return {"tenant_id": owner.tenant_id, "job_id": owner.job_id, "run": owner.run}


class OfUnit(Protocol):
    """A quantity of one of a provider's units: of one request, or a sum."""

    @property
    def provider(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def quantity(self) -> float: ...


def cost(usage: OfUnit, prices: Mapping[str, float]) -> float | None:
    """The cost in the currency of `prices`, which are by `provider:unit`; None if the unit has no price."""
    price = prices.get(f"{usage.provider}:{usage.unit}")
    return None if price is None else usage.quantity * price


def used(owner: OfRun, provider: str, ref: str, amounts: Mapping[str, float]) -> tuple[Usage, ...]:
    """One row for each unit that a request used; negative, infinite and NaN amounts count as 0."""
    return tuple(
        Usage(
            tenant_id=owner.tenant_id,
            job_id=owner.job_id,
            run=owner.run,
            provider=provider,
            unit=unit,
            ref=ref,
            quantity=float(quantity) if 0 <= quantity < math.inf else 0.0,
        )
        for unit, quantity in amounts.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjudication:
    """An adjudicator's answer about one disputed span. An answer is reused for every job of the tenant with the same
    question; a fault only prevents that its own run asks again.
    """

    tenant_id: str
    #: `schemas.words.Question.id`
    question: str
    job_id: str
    run: int
    adjudicator: str
    #: Index of the chosen reading; None for "neither", or for no usable answer.
    choice: int | None
    #: The reason why there is no usable answer.
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An entry of the audit log: the effect of one step on a run, or a change of a tenant's keys, settings or webhooks
    (`schemas.accounts.changes`).
    """

    tenant_id: str
    job_id: str
    run: int
    #: The stage's name.
    step: str
    #: `Outcome.audit`, or "repeated" if the step changed nothing.
    what: str
    duration_ms: float = 0.0
    #: Number of earlier attempts at the event.
    attempt: int = 0
    error: str | None = None
    #: Who did it, where a person did: `web.auth.caller.Caller.id`.
    author: str | None = None
    #: The id of what was changed, and more about the change, where it is not about a job.
    subject: str | None = None
    details: dict[str, Any] | None = None
