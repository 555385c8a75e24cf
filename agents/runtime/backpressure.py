"""Load shedding on event-loop lag: decides which waiting events a busy process starts next.

An event loop with too much to do delays everything alike: polls, status queries, heartbeats, acknowledgements. So the
events of stages that are not time-critical wait here, and a few at a time are started while the loop keeps up, next to
none while it lags. Stages near the end of a run come first, so that under load recordings are completed before others
are begun.

New uploads alternate with all other events, so that their tenants and priorities become known soon; while the process
is `behind`, their stage only stores a row for each.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable

#: Largest event-loop lag, in seconds, as a moving average, at which events are started.
LATE_S = 0.0005
#: The weight of the newest measurement in that average.
NEWEST = 0.25
#: Seconds between two measurements; events that each good one releases, and events released at most after a pause.
TICK_S, STEP, BURST = 0.002, 1, 2
#: With more fetched records of new work than this, a process whose loop lags is behind.
BEHIND = 16
#: So many events run whatever the lag: other processes on the machine may cause it, and waiting would not reduce it.
ALWAYS = 2


class Backpressure:
    """The admission control of one process, for one event loop; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        #: Rank, arrival number and admission of each waiting event with a rank.
        self._ranked: list[tuple[int, int, asyncio.Future[None]]] = []
        self._new: deque[asyncio.Future[None]] = deque()
        self._new_is_next = True
        self._numbers = itertools.count()
        self._running = 0
        self._released = BURST
        self._lag_s = 0.0
        #: Records of new work that are fetched and have not come here, as the driver of their stage last saw it. Each
        #: driver waits here with one event at a time, so the number of waiting events would say nothing.
        self.backlog = 0
        self._measuring: asyncio.Task[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether the event loop lags while much new work waits."""
        return self.backlog > BEHIND and self._lag_s > LATE_S

    async def enter(self, rank: int | None) -> None:
        """Wait until an event of this rank may start. Lower ranks are started first, and equal ones in order of
        arrival. New uploads have no rank.

        After every `enter` that returns, `leave` must be called.
        """
        admission: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if rank is None:
            self._new.append(admission)
        else:
            heapq.heappush(self._ranked, (rank, next(self._numbers), admission))
        self._admit()
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure())
        try:
            await admission
        except asyncio.CancelledError:
            if admission.done() and not admission.cancelled():  # admitted, and cancelled before it could run
                self.leave()
            raise

    def leave(self) -> None:
        """Note that an event that entered has ended."""
        self._running -= 1
        self._admit()

    def _admit(self) -> None:
        while (self._ranked or self._new) and (self._released or self._running < ALWAYS):
            admission = self._next()
            if not admission.done():  # not cancelled
                admission.set_result(None)
                self._running += 1
                self._released = max(0, self._released - 1)

    def _next(self) -> asyncio.Future[None]:
        new = bool(self._new) and (self._new_is_next or not self._ranked)
        self._new_is_next = not new
        return self._new.popleft() if new else heapq.heappop(self._ranked)[2]

    async def _measure(self) -> None:
        while self._ranked or self._new or self._released < BURST:
            began = self._clock()
            await asyncio.sleep(TICK_S)
            self._lag_s += NEWEST * (self._clock() - began - TICK_S - self._lag_s)
            self._released = 0 if self._lag_s > LATE_S else min(BURST, self._released + STEP)
            self._admit()
