"""Notices that this process stood still, stopped or starved: meanwhile others may have taken its work over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

#: Seconds between beats, and how late one may be before it counts as standing still. A group gives a silent member's
#: partitions away after 6 s.
BEAT_S, LATE_S = 0.5, 3.0

#: Seconds after standing still until what this process holds is trusted again: by then it has learned what it lost.
DOUBT_S: Final = 10.0


class Pulse:
    """`steady` says whether what this process holds may be taken for current.

    Without it, a worker that wakes from a SIGSTOP answers the requests that have piled up from partitions which another
    has had for long, and whose newer statuses people have already seen there.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_beat: float | None = None
        self._doubted_until = float("-inf")

    @property
    def steady(self) -> bool:
        """True while beats come; checked at every question, because the first may come before the late beat does."""
        now = self._clock()
        if self._last_beat is not None and now - self._last_beat > LATE_S:
            self._doubted_until = now + DOUBT_S
        return now >= self._doubted_until

    def beat(self) -> None:
        """Time has passed and this process was there."""
        _ = self.steady
        self._last_beat = self._clock()

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beats for as long as the context lasts."""
        task = asyncio.create_task(self._beat_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._last_beat = None

    async def _beat_on(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(BEAT_S)
