"""Completes calls that cost money, up to the storing of their answers, even if the caller is cancelled.

A caller is cancelled when its job is out of time, when its lease is lost, or when its worker stops. Without this, an
answer in flight, or one that waits for PostgreSQL or the store to come back, would be lost, and the call would be made
and paid again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from agents.runtime.stage import backoff_s
from schemas.errors import Unavailable

log = logging.getLogger(__name__)

#: Calls in flight or waiting to be stored, at most: bounds the memory that they occupy while our servers are away.
LIMIT = 256

#: Seconds that a stopping worker waits for calls in flight and for answers to be stored.
GRACE_S = 3.0

T = TypeVar("T")


class PaidCalls:
    """The calls of one process."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._in_flight: dict[asyncio.Task[object], Hashable] = {}

    async def through(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call and return its result; raises what it raises.

        If this is cancelled, the call continues by itself. `key` identifies the caller; see `settled`.
        """
        task = asyncio.ensure_future(call())
        self._in_flight[task] = key
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def require_room(self) -> None:
        """Check that another call may be made.

        Raises:
            Unavailable: As many calls as allowed are in flight or not stored yet.
        """
        if len(self._in_flight) >= self._limit:
            raise Unavailable(f"{self._limit} calls that are paid for are not stored yet; no other is made")

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._in_flight.pop(task, None)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.debug("a call that is paid for failed", exc_info=exc)  # `through` raises it, too, unless cancelled

    async def settled(self, key: Hashable) -> None:
        """Return when no earlier call for this key is in flight, so that all answers to reuse are stored."""
        earlier = [task for task, owner in self._in_flight.items() if owner == key]
        if earlier:
            await asyncio.wait(earlier)

    async def close(self) -> None:
        """Wait `GRACE_S` for calls in flight and cancel the rest, which the next worker makes again."""
        if not self._in_flight:
            return
        _, late = await asyncio.wait(list(self._in_flight), timeout=GRACE_S)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d calls that may be paid for are not stored: PostgreSQL or the store is away", len(late))
            await asyncio.gather(*late, return_exceptions=True)


async def until_stored(write: Callable[[], Awaitable[object]]) -> None:
    """Call `write` until it does not raise `Unavailable`, however long our own servers are away."""
    tries = 0
    while True:
        try:
            await write()
        except Unavailable as exc:
            if not tries:
                log.warning("an answer that is paid for waits to be stored: %s", exc)
            await asyncio.sleep(min(backoff_s(tries), 5.0))
            tries += 1
        else:
            return
