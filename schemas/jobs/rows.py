"""The rows of a job: what the database keeps of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from schemas.events.job import EnrichmentStatus, StepState
from schemas.ids import Key

Status = Literal["uploaded", "transcribing", "reconciling", "persisting", "completed", "failed"]


#: Statuses in the order a run goes through them; "failed" may follow any of the first four.
ORDER: Final = ("uploaded", "transcribing", "reconciling", "persisting", "completed")


TERMINAL: Final = frozenset({"completed", "failed"})


#: Those of jobs that have not ended.
OPEN: Final = tuple(status for status in ORDER if status not in TERMINAL)

#: The stage that works on a job, by the job's status; so also the order of a run's stages. Recognizers share one.
STAGE_OF: Final[Mapping[Status, str]] = {
    "uploaded": "intake",
    "transcribing": "transcribe",
    "reconciling": "reconcile",
    "persisting": "persist",
}


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
    #: What is made of the transcript of the current run, by kind: the published view of its `Enrichment` rows.
    enrichment: dict[str, EnrichmentStatus] = field(default_factory=dict)
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


EnrichmentState = Literal["pending", "running", "retrying", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrichment:
    """One kind of what is made of a run's transcript; see `schemas.jobs.enrichment`."""

    tenant_id: str
    job_id: str
    run: int
    kind: str
    state: EnrichmentState = "pending"
    attempts: int = 0
    error: str | None = None
    #: Why it failed, for programs: a code of `schemas.errors`, "superseded" or "stuck".
    code: str | None = None
    #: Of what made it: a template, a prompt, a program.
    version: str | None = None
    #: What was made, as far as it is small; where the rest is.
    result: dict[str, Any] | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.state in ("done", "failed")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What a step did to a run, for operators."""

    tenant_id: str
    job_id: str
    run: int
    #: The stage's name.
    step: str
    #: `Outcome.audit`, or "repeated" for a step that changed nothing.
    what: str
    duration_ms: float
    #: How often the event was tried before.
    attempt: int
    error: str | None
