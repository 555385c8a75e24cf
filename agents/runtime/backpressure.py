"""Which events a busy process begins next: what has a time of its own at once, the others as the event loop allows.

A loop that is given more than it can do makes everything late alike: polls, status queries, heartbeats, acks. So the
stages that nobody times take their events through a gate, which lets in a few at a time, and next to none while the
loop is behind; what is nearest to its end goes first, so that in a flood recordings end before others are begun.

New work takes turns with all of that, so that who it is for and how urgent it is are known soon; its stage only makes a
row of it while the process is `behind`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque

#: How late the loop may be, in seconds, on a moving average, for anything to be let in.
LATE_S = 0.0005
#: The weight of the newest measurement in that average.
NEWEST = 0.25
#: Seconds between measurements; how many are let in after a good one, and how many at once after a pause.
TICK_S, STEP, BURST = 0.002, 1, 2
#: With more than so many events waiting the process is behind with what it has begun.
BEHIND = 16
#: So many may be under way however late the loop is: others on the machine may be to blame, and waiting help nobody.
ALWAYS = 2


class Backpressure:
    """The gate of one process, in one event loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._new: deque[asyncio.Future[None]] = deque()
        self._new_is_next = True
        self._numbers = itertools.count()
        self._under_way = 0
        self._free = BURST
        self._late_s = 0.0
        self._measuring: asyncio.Task[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether more has begun than this process can do at once."""
        return len(self._waiting) > BEHIND

    async def enter(self, rank: int | None) -> None:
        """Return when an event of this rank may begin; lower ranks go first, and among equals whoever came first. New
        work has no rank.

        Whoever entered leaves.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if rank is None:
            self._new.append(turn)
        else:
            heapq.heappush(self._waiting, (rank, next(self._numbers), turn))
        self._let_in()
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in, and gone before it knew
                self.leave()
            raise

    def leave(self) -> None:
        """An event that entered has ended."""
        self._under_way -= 1
        self._let_in()

    def _let_in(self) -> None:
        while (self._waiting or self._new) and (self._free or self._under_way < ALWAYS):
            turn = self._next()
            if not turn.done():  # cancelled
                turn.set_result(None)
                self._under_way += 1
                self._free = max(0, self._free - 1)

    def _next(self) -> asyncio.Future[None]:
        new = bool(self._new) and (self._new_is_next or not self._waiting)
        self._new_is_next = not new
        return self._new.popleft() if new else heapq.heappop(self._waiting)[2]

    async def _measure(self) -> None:
        while self._waiting or self._new or self._free < BURST:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self._late_s += NEWEST * (time.perf_counter() - began - TICK_S - self._late_s)
            self._free = 0 if self._late_s > LATE_S else min(BURST, self._free + STEP)
            self._let_in()
