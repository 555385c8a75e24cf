"""Manners towards recognizers that others provide: places, rates and pauses, on which all workers agree."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.errors import Transient, Unavailable
from sinks import Database, Traffic

log = logging.getLogger(__name__)

#: Seconds between looks at the queue and at the pauses that others caused.
LOOK_S = 1.0


@dataclass
class Pace:
    """One recognizer's limits, and how it stands with it. Without limits it only minds pauses."""

    database: Database
    provider: str
    #: Requests under way at once, over all workers; None for any number.
    slots: int | None = None
    #: Seconds between two calls, over all workers.
    interval_s: float = 0.0
    #: As of the last look.
    traffic: Traffic = field(default_factory=Traffic)
    _waiting: list[asyncio.Future[float]] = field(default_factory=list)
    _reserving: asyncio.Task[None] | None = None

    async def run(self, seen: Callable[[Traffic], None]) -> None:
        """Admit who queues and look around, for ever; `seen` is told of every look."""
        while True:
            try:
                await self.look()
                seen(self.traffic)
            except Unavailable:
                log.debug("a look at %s was missed: the database is away", self.provider)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Admit who queues, and learn of pauses."""
        self.traffic = await self.database.admit(self.provider, self.slots)

    async def place(self, job_id: str, run: int) -> bool:
        """Whether the request may be under way now. If not, it queues, and its event is made due when it may."""
        return self.slots is None or await self.database.place(job_id, run, self.provider, self.slots)

    async def turn(self, *, reserved: bool) -> float:
        """Seconds until a call may be made; that moment is the caller's. 0 if it had reserved this one, and no pause
        came in between.
        """
        pause_s = await self._pause_s()
        if reserved and not pause_s:
            return 0.0
        if self.interval_s:
            return await self._reserve()
        return pause_s * random.uniform(1.0, 1.25)  # noqa: S311 - so that not all come back at once

    async def _pause_s(self) -> float:
        until = self.traffic.paused_until
        return max(0.0, (until - await self.database.now()).total_seconds()) if until else 0.0

    async def _reserve(self) -> float:
        """One statement for all who ask in the same moment."""
        mine: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if self._reserving is None or self._reserving.done():
            self._reserving = asyncio.create_task(self._reserve_all())
        return await mine

    async def _reserve_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)
            asking, self._waiting = self._waiting, []
            try:
                first = await self.database.reserve(self.provider, len(asking), self.interval_s)
            except Exception as exc:  # noqa: BLE001 - it is the askers' to handle: each gets it
                for future in asking:
                    if not future.done():
                        future.set_exception(exc)
                continue
            for number, future in enumerate(asking):
                if not future.done():
                    future.set_result(first + number * self.interval_s)

    async def failed(self, exc: Transient) -> None:
        """A call did: perhaps everybody has to pause."""
        await self.database.provider_failed(self.provider, exc.retry_after)
        await self.look()

    async def worked(self) -> None:
        """A call was answered."""
        if self.traffic.failures:
            await self.database.provider_worked(self.provider)
            await self.look()
