"""Manners towards recognizers that others provide: places, rates and pauses, on which all workers agree."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.errors import Paused, Transient, Unavailable
from sinks.coalesce import Coalesce
from sinks.ports.clock import Clock
from sinks.ports.leases import Leases
from sinks.ports.providers.limits import Limits
from sinks.ports.providers.slots import Slots, Traffic

log = logging.getLogger(__name__)

#: Seconds between looks at the queue and at the pauses that others caused.
LOOK_S = 1.0

#: Seconds for which a process that computes counts after its last look.
PRESENT_S = 10.0

#: Longest line, in seconds, of calls that are about to be made.
LINE_S = 3.0

#: Seconds that a call usually waits for in the middle of its work.
WAIT_S = 10.0


class Database(Clock, Slots, Limits, Leases, Protocol):
    """What a provider's limits ask of the database."""


@dataclass
class ProviderLimiter:
    """One recognizer's limits and its present state; as `asr.protocols.RateLimit`, for calls in the middle of work.

    Without limits it only minds pauses.
    """

    database: Database
    provider: str
    #: Requests under way at once, over all workers; None for any number.
    slots: int | None = None
    #: Seconds between two calls, over all workers.
    interval_s: float = 0.0
    #: Seconds of pause that a call waits for in the middle of its work; for a longer one the work ends, and comes back.
    patience_s: float = WAIT_S
    #: Places that this process adds to those of the fleet, for a recognizer that computes here; it then gives its name.
    here: int = 0
    holder: str = ""
    #: As of the last look.
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._reserve = Coalesce(self._moments)
        self.at_most = self.slots
        if self.here:
            self.slots = min(self.here, self.slots or self.here)

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
        if self.here:
            present = await self.database.register_worker(f"local {self.provider}", self.holder, PRESENT_S)
            self.slots = min(self.here * present, self.at_most or self.here * present)
        self.traffic = await self.database.grant_slots(self.provider, self.slots)

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int) -> bool:
        """Whether the request may be under way now. If not, it queues, and its event is made due when it may."""
        return self.slots is None or await self.database.acquire_slot(tenant_id, job_id, run, self.provider, self.slots)

    @property
    def limited(self) -> bool:
        """Whether there is anything but pauses to mind."""
        return self.slots is not None or self.interval_s > 0

    async def reserve_call(self, *, reserved: bool) -> float:
        """0 when a call may be made now. Else seconds until a moment that is the caller's, who comes again then, and
        says so.

        Whoever comes late, because our own servers stood still, meets others: so all stand in one short line at last.
        """
        pause_s = await self.pause_s()
        if not self.interval_s:
            return pause_s
        caller = object()  # no two callers share a moment
        if (pause_s or not reserved) and (wait_s := await self._reserve(caller)):
            return wait_s
        line_s = await self.database.space_calls(self.provider, 1, self.interval_s, LINE_S)
        if line_s is None:
            return max(LINE_S, await self._reserve(caller))
        await asyncio.sleep(line_s)
        return await self.pause_s()  # one may have begun meanwhile

    async def wait(self) -> None:
        """See `asr.protocols.RateLimit`. However long the rate makes it wait, it keeps its moment: who gave it up would
        be the last again.
        """
        left_s, reserved = 0.0, False
        while True:
            if (pause_s := await self.pause_s()) > self.patience_s:
                message = f"{self.provider} is not called at present: it failed, or asked for a pause"
                raise Paused(message, retry_after=pause_s)
            left_s = left_s or await self.reserve_call(reserved=reserved)
            if not left_s:
                return
            part_s = min(left_s, WAIT_S)
            await asyncio.sleep(part_s)
            left_s, reserved = left_s - part_s, True

    async def pause_s(self) -> float:
        """Seconds until after the pause, 0 if there is none; a little more, so that not all come back at once."""
        until = self.traffic.paused_until
        left = max(0.0, (until - await self.database.now()).total_seconds()) if until else 0.0
        return left * random.uniform(1.0, 1.25)  # noqa: S311 - chance, not a secret

    async def _moments(self, callers: Sequence[object]) -> list[float]:
        """One statement for all who ask in the same moment."""
        first = await self.database.reserve_calls(self.provider, len(callers), self.interval_s)
        return [first + number * self.interval_s for number in range(len(callers))]

    async def failed(self, exc: Transient) -> None:
        """A call did: perhaps everybody has to pause."""
        await self.database.provider_failed(self.provider, exc.retry_after)
        await self.look()

    async def worked(self) -> None:
        """A call was answered. That PostgreSQL is away does not make the answer one that did not come."""
        if self.traffic.failures:
            with contextlib.suppress(Unavailable):
                await self.database.provider_succeeded(self.provider)
                await self.look()
