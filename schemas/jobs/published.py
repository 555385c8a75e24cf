"""Encodes the events of a step as messages, with deterministic ids and the fields that are known at its commit only."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas import ids, topics
from schemas.events.asr import AsrDeadline, AsrResult
from schemas.events.base import Data, JobEvent
from schemas.events.enrichment import EnrichmentEvent
from schemas.events.job import JobFailed, Persisted
from schemas.events.transcript import TranscriptEdited
from schemas.jobs.outcome import Later, Step
from schemas.jobs.rows import Job, ProviderRequest
from schemas.jobs.status import status_of
from schemas.messages import Message, largest, message, size_of


def deadline_id(tenant_id: str, job_id: str, run: int) -> UUID:
    """The id of the event that ends a run's wait for its recognizers, by which it can be cancelled."""
    return ids.ingress_id(tenant_id, "deadline", f"{job_id}/{run}")


def event_message(step: Step, later: Later, job: Job | None, now: datetime) -> Message:
    """The message of an event that a step produces for this job at time `now`."""
    data = _with_commit_fields(later.data, job, now)
    match data:
        case AsrDeadline(extended=0):
            id = deadline_id(data.tenant_id, data.job_id, data.run)
        case Persisted() | JobFailed():
            id = ids.terminal_id(data.tenant_id, data.job_id, data.run, later.topic)
        case EnrichmentEvent():
            edited = "" if data.transcript_version == 1 else f"/{data.transcript_version}"
            again = "" if data.generation == 1 else f"#{data.generation}"
            id = ids.terminal_id(data.tenant_id, data.job_id, data.run, f"{later.topic}/{data.kind}{edited}{again}")
        case _:
            id = ids.event_id(step.event_id, step.stage, f"{later.kind or later.topic}/{later.index}")
    return message(later.topic, data, id=id, now=now, cause=step.envelope, kind=later.kind, attempt=later.attempt)


def _with_commit_fields(data: Data, job: Job | None, now: datetime) -> Data:
    """The event's data with the time of the commit and the producer's name for the job."""
    fields: dict[str, Any] = {}
    if isinstance(data, JobEvent) and job is not None:
        fields["reference"] = job.reference
    if isinstance(data, Persisted):
        fields["completed_at"] = now
    if isinstance(data, JobFailed):
        fields["failed_at"] = now
    if isinstance(data, TranscriptEdited):
        fields["edited_at"] = now
    if isinstance(data, EnrichmentEvent):
        fields["ended_at"] = now
    return data.model_copy(update=fields) if fields else data


def status_message(step: Step, job: Job, now: datetime) -> Message:
    """The `job.status` message of a row. If it is too large, the steps are published without their errors."""
    status = event_message(step, Later(topics.STATUS.name, status_of(job), index=job.version), job, now)
    if size_of(status) <= largest(status.topic):
        return status
    # Hundreds of steps with long errors: the status must be published all the same.
    steps = {name: state.model_copy(update={"error": None}) for name, state in job.steps.items()}
    short = status_of(replace(job, steps=steps))
    return event_message(step, Later(topics.STATUS.name, short, index=job.version), job, now)


def result_of(row: ProviderRequest, job: Job, remaining: int) -> AsrResult:
    """The `asr.results` event of a request that has ended; `remaining` requests of the run have not."""
    return AsrResult(
        tenant_id=row.tenant_id,
        job_id=row.job_id,
        run=row.run,
        provider=row.provider,
        status="ok" if row.hypothesis_uri else "failed",
        hypothesis_uri=row.hypothesis_uri,
        confidence=row.confidence,
        word_count=row.word_count,
        duration_ms=job.duration_ms,
        language=row.language,
        error=row.error,
        remaining=remaining,
    )
