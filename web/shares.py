"""How much of something each tenant may have at once, so that no one takes it all: watchers, recordings being sent."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator

    from web.auth import Caller

#: Seconds after which asking again makes sense for whoever has too many.
COME_AGAIN_S: Final = 5

#: What one caller may have of all there are: a quarter.
_PARTS: Final = 4


class Shares:
    """Counts what callers have of something, for as long as each has it."""

    def __init__(self, what: str, limit: int) -> None:
        self._what, self._limit = what, limit
        self._each = max(limit // _PARTS, 1)
        self._taken: Counter[str | None] = Counter()

    @contextlib.contextmanager
    def taken(self, caller: Caller) -> Iterator[None]:
        """One more for this caller, for as long as the context lasts.

        Raises:
            HTTPTooManyRequests: the caller has its share already.
            HTTPServiceUnavailable: all of it is taken, by others.
        """
        headers = {"Retry-After": str(COME_AGAIN_S)}
        if self._taken[caller.tenant] >= self._each:
            told = f"you have {self._each} {self._what} here, which is a caller's share; end one first"
            raise web.HTTPTooManyRequests(text=told, headers=headers)
        if self._taken.total() >= self._limit:
            told = f"this worker has all {self._limit} {self._what} that it takes; ask again"
            raise web.HTTPServiceUnavailable(text=told, headers=headers)
        self._taken[caller.tenant] += 1
        try:
            yield
        finally:
            self._taken[caller.tenant] -= 1
            if not self._taken[caller.tenant]:
                del self._taken[caller.tenant]
