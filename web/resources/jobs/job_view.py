"""A job's status as the HTTP interface shows it: with its steps in order, and links to what else there is of it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from schemas.events.job import JobStatus, StepState
from schemas.jobs.rows import TERMINAL, stages_of
from web.resources.jobs.links import links_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Statuses whose JSON is remembered.
RECENT: Final = 1024


class JobView(JobStatus):
    """A job's status, with links."""

    stage: str | None = Field(description="the stage that has the job, or in which it failed; null when completed")
    links: dict[str, str] = Field(description="what else there is of this job, and what can be done with it, by kind")


#: A `JobView` as JSON, for the documentation.
EXAMPLE: Final[Mapping[str, Any]] = {
    "tenant_id": "acme",
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "reference": "call 4711",
    "run": 1,
    "status": "reconciling",
    "version": 5,
    "filename": "call.wav",
    "steps": {
        "intake": {"state": "done", "started_at": "2026-05-01T12:00:00Z", "finished_at": "2026-05-01T12:00:01Z"},
        "transcribe.whisper-base": {"state": "done", "attempts": 1, "progress": 1.0},
        "reconcile": {"state": "running", "started_at": "2026-05-01T12:00:09Z"},
        "persist": {"state": "waiting"},
    },
    "progress": 0.8,
    "reason": None,
    "code": None,
    "created_at": "2026-05-01T12:00:00Z",
    "updated_at": "2026-05-01T12:00:09Z",
    "completed_at": None,
    "stage": "reconcile",
    "links": {
        "self": "/jobs/4711ca11-0000-4000-8000-00000000000a",
        "status": "/jobs/4711ca11-0000-4000-8000-00000000000a/status",
        "events": "/jobs/4711ca11-0000-4000-8000-00000000000a/events",
        "audio": "/jobs/4711ca11-0000-4000-8000-00000000000a/audio",
        "cancel": "/jobs/4711ca11-0000-4000-8000-00000000000a/cancel",
    },
}


def job_view(status: JobStatus, *, operator: bool = False) -> JobView:
    """The view of a status: its steps in the order of the pipeline, those ahead included, and links. Those for an
    operator name the tenant.
    """
    values = {name: getattr(status, name) for name in JobStatus.model_fields}
    values |= {"steps": _steps(status), "stage": stage_of(status), "links": links_of(status, operator=operator)}
    return JobView.model_construct(**values)


def stage_of(status: JobStatus) -> str | None:
    """The stage that has the job, or in which it failed; None when it is completed, or when that is not recorded."""
    if status.status == "failed":
        failed = [
            (step.finished_at or status.updated_at, name)
            for name, step in status.steps.items()
            if step.state == "failed"
        ]
        return max(failed)[1] if failed else None
    return stages_of(status.steps).get(status.status)


def _steps(status: JobStatus) -> dict[str, StepState]:
    """PostgreSQL's jsonb and a merged table keep no order; a page and its reader need one."""
    steps, stages = dict(status.steps), list(stages_of(status.steps).values())
    if status.status not in TERMINAL:
        begun = {name.partition(".")[0] for name in steps}
        steps |= {name: StepState(state="waiting") for name in stages if name not in begun}

    def position(step: str) -> int:
        stage = step.partition(".")[0]
        return stages.index(stage) if stage in stages else len(stages)

    return dict(sorted(steps.items(), key=lambda item: (position(item[0]), item[0])))


def job_json(status: JobStatus, *, operator: bool = False) -> bytes:
    """The view of a status as JSON. The same status object is written once, however often it is asked for."""
    return _json(_Same(status), operator)


class _Same:
    """A status that is equal to itself only."""

    def __init__(self, status: JobStatus) -> None:
        self.status = status

    def __hash__(self) -> int:
        return id(self.status)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.status is other.status


@lru_cache(maxsize=RECENT)  # for a thousand streams of a tenant, 75 ms instead of 110, the clients' part included
def _json(one: _Same, operator: bool) -> bytes:
    return job_view(one.status, operator=operator).model_dump_json().encode()
