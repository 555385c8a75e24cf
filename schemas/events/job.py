"""A job's way to its end: reconciled, persisted or failed, and its status."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    Field,
)

from schemas import errors
from schemas.events.base import MAX_EVENT_METADATA_BYTES, Data, Event, JobEvent, Reason, Share, Uri


class JobReprocess(Event):
    """Ask for a new run of a job whose last run has ended; `run` is the run to begin."""

    reason: Reason = ""


class Reconciled(JobEvent):
    """The recognizers' transcripts have become one."""

    raw_uri: Uri
    method: Literal["calibrated", "gemini", "single"]
    confidence: Share | None = None
    agreement: Share | None = None


class Persisted(JobEvent):
    """Terminal: the transcript is stored, in object storage and in PostgreSQL. Once per (job, run)."""

    status: Literal["completed"] = "completed"
    raw_transcript_uri: Uri
    agent_optimized_uri: Uri
    confidence: Share | None = None
    word_count: int
    duration_seconds: float
    language: str | None = Field(None, description="as the transcript has it; absent where nobody could tell")
    filename: str | None = None
    metadata: dict[str, Any] | None = Field(
        None,
        description=f"the upload's; left out when it has more than {MAX_EVENT_METADATA_BYTES} bytes as JSON: "
        "agent_optimized.json has it, under metadata.custom",
    )
    completed_at: datetime


class JobFailed(JobEvent):
    """Terminal: there will be no transcript of this run, and why. Once per (job, run)."""

    stage: str
    code: str = Field("internal_error", description=f"for programs; more may come: {', '.join(sorted(errors.CODES))}")
    error: Reason
    attempts: int
    failed_at: AwareDatetime | None = None


class RunSweep(Event):
    """Internal: delete what a failed run left in storage."""


class StepState(Data):
    """How far one stage is with one run."""

    state: Literal["waiting", "running", "retrying", "done", "failed"]
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    progress: Share | None = None
    error: Reason | None = None
    notes: tuple[Reason, ...] | None = Field(
        None, description="what intake found odd about the recording: what was lost, how channels and tracks were mixed"
    )


class EnrichmentStatus(Data):
    """How far one kind of enrichment is with the transcript of one run."""

    state: Literal["pending", "running", "retrying", "done", "failed"]
    attempts: int = 0
    error: Reason | None = None
    code: str | None = Field(None, description="for programs, where it failed")
    version: str | None = Field(None, description="of what made it: a template, a prompt, a program")
    started_at: datetime | None = None
    finished_at: datetime | None = None


class JobStatus(JobEvent):
    """Where a job stands. Compacted; the highest version is the truth, whatever the order of arrival."""

    status: Literal["uploaded", "transcribing", "reconciling", "persisting", "completed", "failed"]
    version: Annotated[int, Field(ge=1)]
    filename: str
    steps: dict[str, StepState]
    progress: Share = 0.0
    enrichment: dict[str, EnrichmentStatus] = Field(
        default_factory=dict, description="what is made of the transcript after the run has completed, by kind"
    )
    reason: Reason | None = None
    code: str | None = Field(None, description="for programs, where it failed: as in job.failed")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
