"""Calls that cost money are carried through to where their answers are stored, whatever becomes of who asked.

A job that is out of time, whose lease went to another worker or whose worker stops would otherwise throw away an answer
that is on its way, or one that waits for PostgreSQL or the store to come back; and it would be asked, and paid, again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from agents.runtime.stage import backoff_s
from schemas.errors import Unavailable

log = logging.getLogger(__name__)

#: Calls under way, or waiting to be stored, at most: what they hold in memory is bounded while our servers are away.
LIMIT = 256

#: Seconds that a worker which stops gives calls in flight and answers that are not stored yet.
GRACE_S = 3.0

T = TypeVar("T")


class PaidCalls:
    """The calls of one process."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._under_way: dict[asyncio.Task[object], Hashable] = {}

    async def through(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """What the call returns. Cancelled, the call goes on by itself. `key` says for whom it is, see `settled`."""
        task = asyncio.ensure_future(call())
        self._under_way[task] = key
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def require_room(self) -> None:
        """Raise `Unavailable` when so many calls are not stored yet that no other should be made."""
        if len(self._under_way) >= self._limit:
            raise Unavailable(f"{self._limit} calls that are paid for are not stored yet; no other is made")

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.debug("a call that is paid for failed", exc_info=exc)  # whoever waits for it is told, too

    async def settled(self, key: Hashable) -> None:
        """Return when no earlier call for this key is under way any more: then it is known what need not be asked."""
        earlier = [task for task, whose in self._under_way.items() if whose == key]
        if earlier:
            await asyncio.wait(earlier)

    async def close(self) -> None:
        """Give calls under way a little time, and end the rest: those are asked again by whoever goes on."""
        if not self._under_way:
            return
        _, late = await asyncio.wait(list(self._under_way), timeout=GRACE_S)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d calls that may be paid for are not stored: PostgreSQL or the store is away", len(late))
            await asyncio.gather(*late, return_exceptions=True)


async def until_stored(write: Callable[[], Awaitable[object]]) -> None:
    """Write, however long our own servers are away."""
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
