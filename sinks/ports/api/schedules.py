"""The ports of schedules: as a tenant's administrators see them, and as workers carry them out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from schemas.accounts.schedules import MAX_SCHEDULES, Schedule, WantedJobs
from schemas.errors import Conflict
from sinks.ports.reads import Cursor, JobFilter


class TooManySchedules(Conflict):
    """The tenant has as many schedules as it may have."""

    def __init__(self) -> None:
        super().__init__(f"a tenant may have {MAX_SCHEDULES} schedules: delete one of them")


class Schedules(Protocol):
    """A tenant's schedules. What belongs to another tenant does not exist. Those that are over do not count for how
    many there may be, and of them the newest 50 stay.
    """

    async def add_schedule(self, schedule: Schedule) -> Schedule:
        """Store a new one; the stored one if it is there already. Raises TooManySchedules."""

    async def schedules(self, tenant: str) -> list[Schedule]:
        """All of them, the oldest first."""

    async def schedule(self, tenant: str, schedule_id: UUID) -> Schedule | None:
        """One of them."""

    async def delete_schedule(self, tenant: str, schedule_id: UUID) -> bool:
        """Delete it; whether there was one."""


class Ticks(Protocol):
    """The times of all tenants' schedules. A worker claims a schedule whose turn it is, does a page of its work, and
    says how it goes on; a claim of a worker that says nothing lapses. A write under an older claim does nothing.
    """

    async def claim_schedule(self, lease_s: float) -> Schedule | None:
        """The schedule that has waited longest for its turn."""

    async def continue_tick(self, schedule: Schedule, after: Cursor, asked: int, pause_s: float) -> None:
        """The tick goes on behind this job; `asked` jobs more were asked for."""

    async def end_tick(
        self, schedule: Schedule, following: datetime | None, asked: int, error: str | None = None
    ) -> None:
        """The tick has ended; `following` is the next one. Without one, the schedule is over."""


def wanted_jobs(schedule: Schedule) -> JobFilter:
    """The jobs that the schedule's tick is about. None is uploaded after it, so that the tick ends."""
    wanted = WantedJobs.model_validate(schedule.jobs)
    return JobFilter(
        statuses=frozenset({"completed"}),
        created_from=_days_before(schedule.due_at, wanted.last_days),
        created_to=schedule.due_at,
        filename=wanted.filename,
        reference_prefix=wanted.reference_prefix,
        metadata=frozenset(wanted.metadata.items()),
        language=wanted.language.lower() if wanted.language else None,
        oldest_first=True,
    )


def _days_before(tick: datetime, days: float | None) -> datetime | None:
    return tick - timedelta(days=days) if days is not None else None
