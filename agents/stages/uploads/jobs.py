"""The rows that an upload makes: its job, its request to each recognizer, and the file of its recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agents.media.source.audio_source import Fetched
from schemas.errors import InvalidInput, Unavailable
from schemas.events.audio import AudioUploaded
from schemas.events.job import StepState
from schemas.jobs.deletion import Deletion
from schemas.jobs.rows import Job, ProviderRequest, RequestState
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests

#: Why an upload is refused that has a new job id and the reference of an existing job.
REFERENCE_IN_USE = (
    "reference: is another job's already; leave job_id out to repeat that job, or send another reference for a new one"
)


def repeated_job(upload: AudioUploaded, job_id: str, jobs: Sequence[Job]) -> Job | None:
    """The job that an upload repeats, or None for a new one. `jobs` are those with this id or the upload's reference.

    Raises:
        InvalidInput: The job id and the reference belong to two jobs, or the job has another reference.
    """
    of_id = next((job for job in jobs if job.job_id == job_id), None)
    of_reference = next(
        (job for job in jobs if upload.reference is not None and job.reference == upload.reference), None
    )
    if upload.job_id is None:
        return of_reference or of_id
    if of_reference is not None and of_reference.job_id != job_id:
        raise InvalidInput(REFERENCE_IN_USE)
    if of_id is not None and upload.reference is not None and of_id.reference not in (None, upload.reference):
        raise InvalidInput(
            "job_id: the job with this id has another reference; a job keeps the name that it began with"
        )
    return of_id


async def existing_job(database: Jobs, tenant_id: str, job_id: str) -> Job:
    """The job after a step that it was there for. Raises Unavailable if it was deleted since."""
    job = await database.job(tenant_id, job_id)
    if job is None:
        raise Unavailable("the job was deleted at this moment")
    return job


def first_run(deletion: Deletion | None) -> int:
    """The number of a new job's first run: the next one, if a job of this id was deleted."""
    return deletion.run + 1 if deletion is not None else 1


def new_job(upload: AudioUploaded, job_id: str, fetched: Fetched | None, run: int = 1) -> Job:
    """The job's first row: its recording is stored already (`fetched`), or still has to be fetched. `run` is its first
    one.
    """
    job = Job(
        tenant_id=upload.tenant_id,
        job_id=job_id,
        reference=upload.reference,
        run=run,
        status="transcribing" if fetched else "uploaded",
        filename=upload.filename,
        audio_uri=upload.audio_uri,
        language=upload.language,
        priority=upload.priority,
        not_before=upload.not_before,
        options=upload.options.model_dump(),
        metadata=dict(upload.metadata),
        steps={"intake": fetched_step(fetched) if fetched else StepState(state="running")},
    )
    return replace(job, **audio_columns(fetched)) if fetched else job


def provider_requests(job: Job, recognizers: tuple[str, ...]) -> tuple[ProviderRequest, ...]:
    """One request of the job's run to each recognizer."""
    return tuple(
        ProviderRequest(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            run=job.run,
            provider=name,
            # Two tenants may use the same job id, and the same provider. No name contains a tilde, so that markers
            # are unique.
            marker=f"concord-{job.tenant_id}~{job.job_id}~{job.run}~{name}",
        )
        for name in recognizers
    )


async def earlier_requests(database: Requests, job: Job) -> dict[str, ProviderRequest]:
    """By recognizer, the newest request of the job's runs."""
    runs = [await database.requests(*job.key, run) for run in range(1, job.run + 1)]
    return {request.provider: request for requests in runs for request in requests}


def is_heard(request: ProviderRequest) -> bool:
    """Whether the request has an answer that can be reconciled."""
    return request.state == "done" and request.hypothesis_uri is not None


def reused_request(request: ProviderRequest, earlier: ProviderRequest | None) -> ProviderRequest:
    """The request of a new run, which takes over the `earlier` run's answer, or its request that may be billed
    already; neither is paid for again.
    """
    if earlier is not None and is_heard(earlier):
        return replace(earlier, run=request.run, marker=request.marker)
    if earlier is None or not (earlier.abandoned_at or earlier.state in ("intended", "parked", "submitted")):
        return request
    # It keeps its marker, by which the provider may have listed it.
    state: RequestState = "submitted" if earlier.provider_id else "intended"
    earlier = replace(earlier, error=None, finished_at=None, abandoned_at=None, queued_at=None, admitted_at=None)
    return replace(earlier, run=request.run, state=state)


def fetched_step(fetched: Fetched) -> StepState:
    """The state of the intake step once the recording is stored."""
    return StepState(state="done", progress=1.0, notes=fetched.notes or None)


def audio_columns(fetched: Fetched) -> dict[str, Any]:
    """The columns of a job's row that describe its stored recording."""
    return {
        "original_uri": fetched.blob.uri,
        "content_type": fetched.content_type,
        "duration_ms": fetched.duration_ms,
    }
