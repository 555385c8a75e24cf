"""How long a stage may hold an event: time that strangers take, and not what our own database and stores take.

A limit that counted them would fail jobs for a slow store: persisting takes four calls, and at 7 s a call would never
be done in 20 s, however often it began again. Each of those calls has a limit of its own, after which it is
`Unavailable`.
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
    #: Calls to our own servers that are under way, also side by side.
    calls: int = 0
    #: Seconds that were left when the first of them began.
    left_s: float = 0.0
    #: The event is done with; what it has begun may go on without it.
    over: bool = False

    def hold(self) -> None:
        self.calls += 1
        when = self.timeout.when()
        if not self.over and when is not None and not self.timeout.expired():
            self.left_s = when - asyncio.get_running_loop().time()
            self.timeout.reschedule(None)

    def go_on(self) -> None:
        self.calls -= 1
        if not self.over and not self.calls and self.timeout.when() is None:
            self.timeout.reschedule(asyncio.get_running_loop().time() + self.left_s)


_current: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Raises TimeoutError when what is in here takes longer, what is `not_counted` left out."""
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
    """Stop the clock of the event that this is done for, if it is done for one. For calls to our own servers."""
    limit = _current.get()
    if limit is None:
        yield
        return
    limit.hold()
    try:
        yield
    finally:
        limit.go_on()
