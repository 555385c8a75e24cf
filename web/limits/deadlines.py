"""Ends answers that take too long. All have the same time, so that one timer serves them all: a timer for each took a
twentieth of the CPU time of a request for a status.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from schemas.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine

#: Seconds that an answer may take that is not streamed.
REQUEST_S: Final = 30.0

A = TypeVar("A")


class Deadlines:
    """The answers under way in one event loop, the oldest first, and when each has to be given."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def keep(self, answer: Coroutine[Any, Any, A]) -> A:
        """The answer, if it comes within `REQUEST_S`.

        Raises:
            Unavailable: it does not; it is cancelled then.
        """
        timeout, loop = asyncio.timeout(None), asyncio.get_running_loop()
        try:
            async with timeout:
                self._ends[timeout] = loop.time() + REQUEST_S
                if self._timer is None:
                    self._timer = loop.call_later(REQUEST_S, self._expire)
                return await answer
        except TimeoutError as exc:
            raise Unavailable(f"no answer within {REQUEST_S:.0f} s") from exc
        finally:
            del self._ends[timeout]

    def _expire(self) -> None:
        """End what is late, and look again when the next one may be."""
        loop, self._timer = asyncio.get_running_loop(), None
        for timeout, end in self._ends.items():
            if end > loop.time():
                self._timer = loop.call_at(end, self._expire)
                return
            timeout.reschedule(end)
