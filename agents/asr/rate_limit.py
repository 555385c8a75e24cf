"""Fleet-wide limits per recognizer: concurrent requests, call rate, circuit breaker. Their state is in PostgreSQL."""

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

#: Seconds between two refreshes of the shared state: queued requests, and pauses that other workers caused.
REFRESH_S = 1.0

#: Seconds after its last refresh for which a worker counts as present.
PRESENT_S = 10.0

#: Seconds of the second queue, at most, in which calls that are made late are spaced again.
QUEUE_S = 3.0

#: Seconds of pause that a call waits for in the middle of its work, by default.
WAIT_S = 10.0


class Database(Clock, Slots, Limits, Leases, Protocol):
    """What a provider's limits ask of the database."""


@dataclass
class ProviderLimiter:
    """The limits of one recognizer and their state. It is also an `asr.protocols.RateLimit`, for calls in the middle of
    work.

    Without limits, only pauses (the circuit breaker) apply.
    """

    database: Database
    provider: str
    #: Concurrent requests of all workers; None for any number.
    slots: int | None = None
    #: Seconds between two calls, of all workers.
    interval_s: float = 0.0
    #: Seconds of pause that a call waits for in the middle of its work. During a longer pause, the work ends and its
    #: event is delivered again later.
    patience_s: float = WAIT_S
    #: Slots that this worker adds to those of the fleet, for a recognizer that computes here; and the worker's name.
    here: int = 0
    holder: str = ""
    #: As of the last refresh.
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._reserve = Coalesce(self._reserve_calls)
        self.at_most = self.slots
        if self.here:
            self.slots = min(self.here, self.slots or self.here)

    async def run(self, on_refresh: Callable[[Traffic], None]) -> None:
        """Refresh the state for ever; calls `on_refresh` after each refresh."""
        while True:
            try:
                await self.refresh()
                on_refresh(self.traffic)
            except Unavailable:
                log.debug("the limits of %s are not refreshed: the database is away", self.provider)
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Grant free slots to queued requests, and read the current pause. Raises `Unavailable`."""
        if self.here:
            present = await self.database.register_worker(f"local {self.provider}", self.holder, PRESENT_S)
            self.slots = min(self.here * present, self.at_most or self.here * present)
        self.traffic = await self.database.grant_slots(self.provider, self.slots, overtaking=bool(self.here))

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int) -> bool:
        """Whether the request may start now. If not, it is queued, and its event becomes due when a slot is granted.

        Raises `Unavailable`.
        """
        return self.slots is None or await self.database.acquire_slot(tenant_id, job_id, run, self.provider, self.slots)

    @property
    def limited(self) -> bool:
        """Whether slots or a call rate apply, and not only pauses."""
        return self.slots is not None or self.interval_s > 0

    async def reserve_call(self, *, reserved: bool) -> float:
        """0 if a call may be made now, otherwise the seconds until the time that is reserved for the caller.

        The caller then calls again with `reserved`. Callers that missed their reserved time, because our own servers
        were blocked, are spaced again in a second, short queue, to avoid a burst. Raises `Unavailable`.
        """
        pause_s = await self.pause_s()
        if not self.interval_s:
            return pause_s
        caller = object()  # unique, so that `Coalesce` reserves a time for each caller
        if (pause_s or not reserved) and (wait_s := await self._reserve(caller)):
            return wait_s
        queue_s = await self.database.space_calls(self.provider, 1, self.interval_s, QUEUE_S)
        if queue_s is None:
            return max(QUEUE_S, await self._reserve(caller))
        await asyncio.sleep(queue_s)
        return await self.pause_s()  # a pause may have begun meanwhile

    async def wait(self) -> None:
        """See `asr.protocols.RateLimit`. Keeps its reservation while waiting, however long that takes; releasing it
        would requeue the caller at the end.
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
        """Seconds until the end of the current pause, 0 if there is none. Up to a quarter longer at random, so that not
        all callers continue at once.
        """
        until = self.traffic.paused_until
        left = max(0.0, (until - await self.database.now()).total_seconds()) if until else 0.0
        return left * random.uniform(1.0, 1.25)  # noqa: S311 - chance, not a secret

    async def _reserve_calls(self, callers: Sequence[object]) -> list[float]:
        """Seconds until the reserved time of each caller: one statement for all concurrent callers."""
        first = await self.database.reserve_calls(self.provider, len(callers), self.interval_s)
        return [first + number * self.interval_s for number in range(len(callers))]

    async def failed(self, exc: Transient) -> None:
        """Record a failed call in the circuit breaker; this may start a pause for all workers."""
        await self.database.provider_failed(self.provider, exc.retry_after)
        await self.refresh()

    async def worked(self) -> None:
        """Record an answered call in the circuit breaker. Skipped while PostgreSQL is away: the call did not fail."""
        if self.traffic.failures:
            with contextlib.suppress(Unavailable):
                await self.database.provider_succeeded(self.provider)
                await self.refresh()
