"""Schedules on PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from schemas.accounts.schedules import MAX_SCHEDULES, Schedule
from sinks.ports.api.schedules import Schedules, Ticks, TooManySchedules
from sinks.ports.reads import Cursor
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.tables import SCHEDULES


class PostgresSchedules(PostgresPort, Schedules, Ticks):
    """`Schedules` and `Ticks` on a pool."""

    async def add_schedule(self, schedule: Schedule) -> Schedule:
        """Store a new one."""
        rows = await self._fetch("add_schedule", *SCHEDULES.values([schedule])[0], MAX_SCHEDULES)
        stored = SCHEDULES.read(rows[0]) if rows else await self.schedule(schedule.tenant_id, schedule.schedule_id)
        if stored is None:
            raise TooManySchedules
        return stored

    async def schedules(self, tenant: str) -> list[Schedule]:
        """All of them, the oldest first."""
        return list(map(SCHEDULES.read, await self._fetch("schedules", tenant)))

    async def schedule(self, tenant: str, schedule_id: UUID) -> Schedule | None:
        """One of them."""
        rows = await self._fetch("schedule", tenant, schedule_id)
        return SCHEDULES.read(rows[0]) if rows else None

    async def delete_schedule(self, tenant: str, schedule_id: UUID) -> bool:
        """Delete it; whether there was one."""
        return bool(await self._fetch("delete_schedule", tenant, schedule_id))

    async def claim_schedule(self, lease_s: float) -> Schedule | None:
        """The schedule that has waited longest for its turn."""
        rows = await self._fetch("claim_schedule", lease_s)
        return SCHEDULES.read(rows[0]) if rows else None

    async def continue_tick(self, schedule: Schedule, after: Cursor, asked: int, pause_s: float) -> None:
        """The tick goes on behind this job."""
        claim = schedule.schedule_id, schedule.token
        await self._fetch("continue_tick", *claim, after.created_at, after.job_id, asked, pause_s)

    async def end_tick(
        self, schedule: Schedule, following: datetime | None, asked: int, error: str | None = None
    ) -> None:
        """The tick has ended."""
        await self._fetch("end_tick", schedule.schedule_id, schedule.token, asked, error, following)
