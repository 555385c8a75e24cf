"""A timeout for handling one event that does not count calls to Concord's own database and stores.

If it counted them, a slow store would fail jobs: persisting makes four calls, and at 7 s each it would never finish
within 20 s, however often it is retried. Each of those calls has its own timeout, after which it raises `Unavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class _Limit:
    timeout: asyncio.Timeout
    #: Number of concurrent calls to the database and stores.
    calls: int = 0
    #: Seconds that remained when the first of them began.
    left_s: float = 0.0
    #: The event has been handled; tasks that it started may still run.
    over: bool = False

    def pause(self) -> None:
        self.calls += 1
        when = self.timeout.when()
        if not self.over and when is not None and not self.timeout.expired():
            self.left_s = when - asyncio.get_running_loop().time()
            self.timeout.reschedule(None)

    def resume(self) -> None:
        self.calls -= 1
        if not self.over and not self.calls and self.timeout.when() is None:
            self.timeout.reschedule(asyncio.get_running_loop().time() + self.left_s)


_current: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Limit the block to `seconds`, not counting the time in `not_counted` blocks.

    Raises:
        TimeoutError: the block takes longer.
    """
    async with asyncio.timeout(seconds) as timeout:
        limit = _Limit(timeout)
        token = _current.set(limit)
        try:
            yield
        finally:
            limit.over = True
            _current.reset(token)


@contextmanager
def not_counted() -> Iterator[None]:
    """Pause the enclosing `time_limit`, if there is one, during a call to the database or a store."""
    limit = _current.get()
    if limit is None:
        yield
        return
    limit.pause()
    try:
        yield
    finally:
        limit.resume()
