"""Which of the requests that have a slot a recognizer on this machine hears next: the most urgent one, and of equally
urgent ones the one that got its slot first.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

#: The urgency of a request (9 less its priority), and when it got its slot: the lowest is first.
Rank = tuple[int, datetime]


@dataclass
class ModelQueue:
    """Lets so many tasks at a time use the model. Who is next is decided when it becomes free."""

    at_once: int = 1
    _running: set[str] = field(default_factory=set)
    _waiting: list[tuple[Rank, int, asyncio.Future[None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _taken: int = 0

    @contextlib.asynccontextmanager
    async def turn(self, key: str, rank: Rank) -> AsyncIterator[None]:
        """Wait until the task of this key may use the model, which it does as long as the context lasts."""
        if self._taken < self.at_once:
            self._taken += 1
        else:
            await self._wait(rank)
        self._running.add(key)
        try:
            yield
        finally:
            self._running.discard(key)
            self._pass_on()

    def is_running(self, key: str) -> bool:
        """Whether the task of this key uses the model."""
        return key in self._running

    async def _wait(self, rank: Rank) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._numbers), mine))
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it was given the model at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """The first that still waits takes the place of one that ends."""
        while self._waiting:
            *_, first = heapq.heappop(self._waiting)
            if not first.done():
                first.set_result(None)
                return
        self._taken -= 1
