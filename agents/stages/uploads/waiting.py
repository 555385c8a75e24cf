"""Runs that wait until they are admitted (`sinks.ports.uploads`): their jobs are rows, and their events are put off."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from schemas import topics
from schemas.events.base import Data
from schemas.events.job import JobReprocess, StepState
from schemas.jobs.outcome import Later, Outcome, Progress
from schemas.jobs.rows import Job, run_fields

#: Seconds after which the event of a queued run is delivered even if the run was not admitted.
QUEUED_S: Final = 3600.0

#: The step of a queued run.
WAITING: Final = StepState(state="waiting")


def put_off(data: Data, wait_s: float = 0.0, *, attempt: int = 0) -> Later:
    """The event of a run that is queued, and cannot be admitted before `wait_s`. It becomes due when it is admitted."""
    kind = "job.reprocess" if isinstance(data, JobReprocess) else "audio.fetch"
    return Later(topics.INTAKE_DUE.name, data, seconds=wait_s + QUEUED_S, kind=kind, attempt=attempt)


def queued(begun: Outcome, now: datetime, wanted: JobReprocess | None = None) -> Outcome:
    """The outcome that begins a run with a recording that is stored, or a later run, as one that queues it. What it
    asks for is `wanted`; of a first run, the whole of it.

    Raises:
        ValueError: The outcome begins no run.
    """
    job = begun.create or begun.begin
    if job is None:
        raise ValueError("the outcome begins no run")
    step = WAITING.model_copy(update={"notes": job.audio_notes or None})
    waiting = replace(job, status="uploaded", steps={"intake": step}, queued_at=now)
    later = put_off(wanted or JobReprocess(**run_fields(job)))
    begun = replace(begun, new_requests=(), later=(later,), audit="started")
    return replace(begun, create=waiting) if begun.create else replace(begun, begin=waiting)


def admitted(begun: Outcome) -> Outcome:
    """The outcome that begins a later run, for a run that exists already and was queued.

    Raises:
        ValueError: The outcome does not begin a later run.
    """
    if begun.begin is None:
        raise ValueError("the outcome does not begin a later run")
    job = begun.begin
    progress = Progress(run=job.run, status=job.status, stage="intake", step=job.steps["intake"])
    return replace(begun, begin=None, run=job.run, progress=progress)


def still_queued(job: Job, data: Data, attempt: int) -> Outcome:
    """Nothing is done for a queued run whose event was delivered before it was admitted. The row is written as it was
    read: if it was admitted meanwhile, it is queued again, because its event is put off again.
    """
    progress = Progress(run=job.run, columns={"queued_at": job.queued_at})
    later = (put_off(data, attempt=attempt),)
    return Outcome(tenant_id=job.tenant_id, job_id=job.job_id, progress=progress, later=later, audit="")
