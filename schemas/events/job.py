"""Events of a job: reprocessing, reconciled, persisted, failed, and its status."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    Field,
)

from schemas import errors
from schemas.events.base import MAX_EVENT_METADATA_BYTES, Data, Event, JobEvent, Reason, Share, Uri
from schemas.ids import Name


class JobReprocess(Event):
    """Begin a new run of a job whose last run has ended; `run` is the number of the new one."""

    reason: Reason = ""
    source: Literal["missing", "transcribe", "reconcile"] = Field(
        "missing",
        description="Where it begins. `missing`: recognizers are asked that have not answered. `transcribe`: all are "
        "asked again, and may bill again. `reconcile`: none is asked; the answers that exist are reconciled again.",
    )
    recognizers: tuple[Name, ...] | None = Field(
        None, description="These recognizers are asked again, and those that have not answered; the others are not."
    )


class Reconciled(JobEvent):
    """The recognizers' transcripts have been reconciled."""

    raw_uri: Uri
    method: Literal["calibrated", "gemini", "single"]
    confidence: Share | None = None
    agreement: Share | None = None


class Persisted(JobEvent):
    """Terminal: the transcript is stored in object storage and in PostgreSQL. Exactly one per (job, run)."""

    status: Literal["completed"] = "completed"
    raw_transcript_uri: Uri
    agent_optimized_uri: Uri
    confidence: Share | None = None
    word_count: int
    duration_seconds: float
    language: str | None = Field(None, description="Language of the transcript as a BCP 47 tag; absent if unknown.")
    filename: str | None = None
    metadata: dict[str, Any] | None = Field(
        None,
        description=f"Metadata of the upload. Left out if it has more than {MAX_EVENT_METADATA_BYTES} bytes as JSON; "
        "agent_optimized.json always has it, under metadata.custom.",
    )
    completed_at: datetime


class JobFailed(JobEvent):
    """Terminal: this run has no transcript, with the reason. Exactly one per (job, run)."""

    stage: str
    code: str = Field(
        "internal_error",
        description=f"Error code for programs. Later versions may add more: {', '.join(sorted(errors.CODES))}.",
    )
    error: Reason
    attempts: int
    failed_at: AwareDatetime | None = None


class RunSweep(Event):
    """Internal: delete the blobs of a failed run, or what a completed one that forgets has got late."""


class StepState(Data):
    """The state of one stage in one run."""

    state: Literal["waiting", "queued", "running", "retrying", "done", "failed", "cancelled"] = Field(
        description="`waiting`: it has not begun. `queued`: a recognizer's turn has not come, because it hears others. "
        "`cancelled`: it had not ended when the job was cancelled."
    )
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    progress: Share | None = None
    position: int | None = Field(
        None,
        ge=1,
        description="Of a queued recognizer, over HTTP only: its place among those that wait at this moment, from 1; "
        "1000 also stands for later places.",
    )
    error: Reason | None = None
    notes: tuple[Reason, ...] | None = Field(
        None,
        description="Notes of intake about the recording: what is missing, how channels and tracks are mixed. "
        "Of a recognizer: what it waits for, why it was left out.",
    )


EnrichmentState = Literal["pending", "running", "retrying", "done", "failed"]


class EnrichmentStatus(Data):
    """The state of one enrichment of one run."""

    state: EnrichmentState
    attempts: int = 0
    error: Reason | None = None
    code: str | None = Field(None, description="Error code for programs, if it failed.")
    version: str | None = Field(None, description="Version of the template, prompt or program that creates it.")
    transcript_version: int = Field(1, description="Version of the transcript that it is, or will be, made from.")
    generation: int = Field(1, description="How often it was begun of that version: schedules have it made again.")
    started_at: datetime | None = None
    finished_at: datetime | None = None


class JobStatus(JobEvent):
    """The status of a job. The topic is compacted; the highest version is current, whatever the order of arrival."""

    status: Literal["uploaded", "transcribing", "reconciling", "persisting", "completed", "failed"]
    version: Annotated[int, Field(ge=1)]
    filename: str
    steps: dict[str, StepState]
    progress: Share = 0.0
    enrichment: dict[str, EnrichmentStatus] = Field(
        default_factory=dict, description="Enrichments of the run, by kind."
    )
    transcript_version: int = Field(1, description="Version of the transcript: 1 is the run's own, edits make others.")
    reason: Reason | None = None
    code: str | None = Field(None, description="Error code for programs, if the job failed, as in job.failed.")
    not_before: datetime | None = Field(None, description="Before when the run must not begin, as its upload says.")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
