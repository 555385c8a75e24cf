"""Runs that wait until they are admitted (`sinks.ports.uploads`): their jobs are rows, and their events are put off."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from schemas import topics
from schemas.errors import InvalidInput
from schemas.events.audio import AudioUploaded
from schemas.events.base import Data
from schemas.events.job import JobReprocess, StepState
from schemas.jobs.outcome import Later, Outcome, Progress
from schemas.jobs.rows import File, Job, run_fields
from sinks.ports.clock import Clock

#: Seconds after which the event of a queued run is delivered even if the run was not admitted.
QUEUED_S: Final = 3600.0

#: Days for which an upload may wait at most.
LATEST_DAYS: Final = 90

#: The step of a queued run.
WAITING: Final = StepState(state="waiting")


def put_off(data: Data, seconds: float = 0.0, *, attempt: int = 0) -> Later:
    """The event of a run that cannot be admitted before so many seconds. It becomes due when it is admitted."""
    kind = "job.reprocess" if isinstance(data, JobReprocess) else "audio.fetch"
    return Later(topics.INTAKE_DUE.name, data, seconds=seconds + QUEUED_S, kind=kind, attempt=attempt)


def check_not_before(upload: AudioUploaded, now: datetime) -> None:
    """Raises InvalidInput for an upload that is to wait for too long."""
    if upload.not_before is not None and upload.not_before > now + timedelta(days=LATEST_DAYS):
        raise InvalidInput(f"not_before: {upload.not_before.isoformat()} is more than {LATEST_DAYS} days ahead")


async def begun(run: Outcome, clock: Clock, *, is_limited: bool, wanted: JobReprocess | None = None) -> Outcome:
    """The outcome that begins a run, or that queues it: until it may begin (`Job.not_before`), or because its tenant
    may have so many jobs open (`is_limited`). What a later run asks for is `wanted`.
    """
    job = run.create or run.begin
    if job is None or (job.not_before is None and not is_limited):
        return run
    now = await clock.now()
    if not is_limited and (job.not_before or now) <= now:
        return run
    queued = in_queue(job, now)
    later = put_off(wanted or JobReprocess(**run_fields(job)), wait_s(queued, now))
    run = replace(run, new_requests=(), later=(later,), audit="started")
    return replace(run, create=queued) if run.create else replace(run, begin=queued)


def until_its_time(job: Job, columns: dict[str, Any], files: tuple[File, ...], now: datetime) -> Outcome:
    """The outcome that stores a run's recording (its `columns` and `files`), and queues the run until it may begin."""
    queued = in_queue(job, now)
    columns = columns | {"queued_at": queued.queued_at}
    return Outcome(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        progress=Progress(run=job.run, stage=job.first_stage, step=queued.steps[job.first_stage], columns=columns),
        files=files,
        later=(put_off(JobReprocess(**run_fields(job)), wait_s(queued, now)),),
    )


def in_queue(job: Job, now: datetime) -> Job:
    """The job, queued: from now on, or from when it may begin."""
    step = WAITING.model_copy(update={"notes": job.audio_notes or None})
    queued_at = max(now, job.not_before or now)
    return replace(job, status="uploaded", steps={job.first_stage: step}, queued_at=queued_at)


def wait_s(job: Job, now: datetime) -> float:
    """Seconds before which a queued job cannot be admitted."""
    return max(((job.queued_at or now) - now).total_seconds(), 0.0)


def admitted(begun: Outcome) -> Outcome:
    """The outcome that begins a later run, for a run that exists already and was queued.

    Raises:
        ValueError: The outcome does not begin a later run.
    """
    if begun.begin is None:
        raise ValueError("the outcome does not begin a later run")
    job = begun.begin
    stage = job.first_stage
    progress = Progress(run=job.run, status=job.status, stage=stage, step=job.steps[stage])
    return replace(begun, begin=None, run=job.run, progress=progress)


def still_queued(job: Job, data: Data, attempt: int) -> Outcome:
    """Nothing is done for a queued run whose event was delivered before it was admitted. The row is written as it was
    read: if it was admitted meanwhile, it is queued again, because its event is put off again.
    """
    progress = Progress(run=job.run, columns={"queued_at": job.queued_at})
    later = (put_off(data, attempt=attempt),)
    return Outcome(tenant_id=job.tenant_id, job_id=job.job_id, progress=progress, later=later, audit="")
