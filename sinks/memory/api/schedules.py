"""The double of schedules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from schemas.accounts.schedules import MAX_SCHEDULES, Schedule
from sinks.memory.state import NEVER, MemoryState
from sinks.ports.api.schedules import Schedules, Ticks, TooManySchedules
from sinks.ports.reads import Cursor


@dataclass
class MemorySchedules(MemoryState, Schedules, Ticks):
    """`Schedules` and `Ticks` in this process."""

    #: By id: the schedule, and when its turn is.
    _schedules: dict[UUID, tuple[Schedule, datetime]] = field(default_factory=dict)

    async def add_schedule(self, schedule: Schedule) -> Schedule:
        """Store a new one."""
        if schedule.schedule_id not in self._schedules:
            over = [one for one in await self.schedules(schedule.tenant_id) if one.is_over]
            for old in over[: -MAX_SCHEDULES + 1]:
                del self._schedules[old.schedule_id]
            if sum(not one.is_over for one in await self.schedules(schedule.tenant_id)) >= MAX_SCHEDULES:
                raise TooManySchedules
            self._schedules[schedule.schedule_id] = replace(schedule, created_at=self.clock()), schedule.due_at
        return self._schedules[schedule.schedule_id][0]

    async def schedules(self, tenant: str) -> list[Schedule]:
        """All of them, the oldest first."""
        return [schedule for schedule, _ in self._schedules.values() if schedule.tenant_id == tenant]

    async def schedule(self, tenant: str, schedule_id: UUID) -> Schedule | None:
        """One of them."""
        return next((one for one in await self.schedules(tenant) if one.schedule_id == schedule_id), None)

    async def delete_schedule(self, tenant: str, schedule_id: UUID) -> bool:
        """Delete it; whether there was one."""
        if await self.schedule(tenant, schedule_id) is None:
            return False
        del self._schedules[schedule_id]
        self.sent_mails = {key: row for key, row in self.sent_mails.items() if key[1] != f"schedule-{schedule_id}"}
        return True

    async def claim_schedule(self, lease_s: float) -> Schedule | None:
        """The schedule that has waited longest for its turn."""
        now = self.clock()
        waiting = [(turn, one) for one, turn in self._schedules.values() if turn <= now]
        if not waiting:
            return None
        _, first = min(waiting, key=lambda pair: pair[0])
        claimed = replace(first, token=first.token + 1)
        self._schedules[first.schedule_id] = claimed, now + timedelta(seconds=lease_s)
        return claimed

    async def continue_tick(self, schedule: Schedule, after: Cursor, asked: int, pause_s: float) -> None:
        """The tick goes on behind this job."""
        if (stored := self._under_claim(schedule)) is not None:
            stored = replace(
                stored, asked=stored.asked + asked, after_created_at=after.created_at, after_job=after.job_id
            )
            self._schedules[stored.schedule_id] = stored, self.clock() + timedelta(seconds=pause_s)

    async def end_tick(
        self, schedule: Schedule, following: datetime | None, asked: int, error: str | None = None
    ) -> None:
        """The tick has ended."""
        if (stored := self._under_claim(schedule)) is not None:
            stored = replace(
                stored,
                due_at=following or stored.due_at,
                after_created_at=None,
                after_job=None,
                asked=0,
                last_tick_at=stored.due_at,
                last_asked=stored.asked + asked,
                last_error=error,
            )
            self._schedules[stored.schedule_id] = stored, following or NEVER

    def _under_claim(self, schedule: Schedule) -> Schedule | None:
        stored, _ = self._schedules.get(schedule.schedule_id, (None, None))
        return stored if stored is not None and stored.token == schedule.token else None
