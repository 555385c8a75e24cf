"""How many streamed responses (event streams, recordings) each caller may have open, so that others have room."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from aiohttp import web

from web.problems import ApiProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.ids import Whose
    from web.auth.caller import Caller

#: `Retry-After` of a refusal, in seconds.
RETRY_S: Final = 5

#: One caller may have a quarter of the limit.
_PARTS: Final = 4


class CallerLimit:
    """Counts the open responses of one kind, in all and by caller. `kind` is a plural for error texts."""

    def __init__(self, kind: str, limit: int) -> None:
        self._kind, self._limit = kind, limit
        self._per_caller = max(limit // _PARTS, 1)
        self._open: Counter[Whose] = Counter()

    @contextlib.contextmanager
    def acquire(self, caller: Caller) -> Iterator[None]:
        """Count one more response for this caller, for as long as the context lasts.

        Raises:
            ApiProblem: the caller has reached its own limit.
            HTTPServiceUnavailable: all callers together have reached the limit.
        """
        headers = {"Retry-After": str(RETRY_S)}
        if self._open[caller.whose] >= self._per_caller:
            detail = f"you have {self._per_caller} {self._kind} open here, the limit of one caller; close one first"
            raise ApiProblem("too_many_streams", detail, headers=headers)
        if self._open.total() >= self._limit:
            detail = f"this worker has all {self._limit} {self._kind} open that it allows; try again"
            raise web.HTTPServiceUnavailable(text=detail, headers=headers)
        self._open[caller.whose] += 1
        try:
            yield
        finally:
            self._open[caller.whose] -= 1
            if not self._open[caller.whose]:
                del self._open[caller.whose]
