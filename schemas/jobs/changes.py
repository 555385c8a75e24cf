"""How single values of a run's rows change: the state of a step, the texts and the end of a provider's request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from schemas.errors import Cancelled
from schemas.events.job import StepState
from schemas.jobs.rows import Job, ProviderRequest
from schemas.texts import ERROR_CHARS, readable

#: The states of steps that have ended.
_ENDED: Final = ("done", "failed", "cancelled")


def merged(old: StepState | None, new: StepState, now: datetime, seconds: float) -> StepState:
    """The new state with its times: the step started with its first event, or `seconds` ago with this one. What a step
    has reached, it has while it is tried again, and when it fails.
    """
    ended = new.state in _ENDED
    goes_on = new.state in ("running", "retrying", "failed")
    return new.model_copy(
        update={
            "progress": old.progress if new.progress is None and old and goes_on else new.progress,
            "started_at": (old.started_at if old else None) or now - timedelta(seconds=seconds),
            "finished_at": now if ended else None,
            "attempts": max(new.attempts, old.attempts if old else 0),
        }
    )


def closed_steps(job: Job, now: datetime) -> dict[str, StepState]:
    """The steps of a run that has ended: where the job was cancelled, those that had not ended are so, too."""
    if job.code != Cancelled.code:
        return job.steps
    closed = {"state": "cancelled", "finished_at": now, "position": None}
    return {name: step if step.state in _ENDED else step.model_copy(update=closed) for name, step in job.steps.items()}


def bounded(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a request with the provider's texts cut to the limits of an event."""
    limits = {"error": ERROR_CHARS, "language": 100}
    return {
        name: readable(value, limits[name]) if name in limits and value is not None else value
        for name, value in columns.items()
    }


def abandoned(row: ProviderRequest, reason: str, now: datetime) -> ProviderRequest:
    """The request as failed because its run no longer waits; a parked one keeps its own reason, too."""
    error = readable(f"{reason}: {row.error}", ERROR_CHARS) if row.state == "parked" else reason
    abandoned_at = now if row.state != "waiting" else None
    return replace(row, state="failed", error=error, finished_at=now, abandoned_at=abandoned_at)
