"""Limits the requests of each API key, by a token bucket in this process: several workers have one bucket each.

The bucket holds a minute's requests. One shared by all workers would cost each request a statement in PostgreSQL, and
reading a status costs one.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.ids import EVERY_TENANT
from web.middleware.request_state import QUOTA, Quota
from web.problems import ApiProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from sinks.ports.accounts.settings import EffectiveSettings
    from web.auth.caller import Caller

#: The window of a limit in seconds, and the keys whose buckets are kept.
WINDOW_S: Final = 60
MOST: Final = 20_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimits:
    """The buckets of all keys. `settings` None limits nobody, and nothing limits operators."""

    def __init__(self, settings: EffectiveSettings | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def admit(self, request: web.Request, caller: Caller) -> None:
        """Take one request from the caller's bucket, and note in `request` what is left.

        Raises:
            ApiProblem: none is left.
            Unavailable: the tenant's settings are not known, and the database is away.
        """
        if self._settings is None or caller.whose is EVERY_TENANT or not caller.whose:
            return
        limit = (await self._settings.settings_of(caller.whose)).requests_per_minute
        if limit is None:
            return
        bucket, per_s = self._filled(caller.id, limit), limit / WINDOW_S
        is_admitted = bucket.tokens >= 1
        bucket.tokens -= is_admitted
        request[QUOTA] = Quota(limit, int(bucket.tokens), math.ceil((limit - bucket.tokens) / per_s))
        if not is_admitted:
            wait_s = max(1, math.ceil((1 - bucket.tokens) / per_s))
            detail = f"this key may send {limit} requests a minute; ask again in {wait_s} s"
            raise ApiProblem("rate_limited", detail, headers={"Retry-After": str(wait_s)})

    def _filled(self, key: str, limit: int) -> _Bucket:
        """The key's bucket as it is now. A limit that was lowered holds at once."""
        now = self._clock()
        bucket = self._buckets.pop(key, None) or _Bucket(limit, now)
        bucket.tokens = min(limit, bucket.tokens + (now - bucket.at) * limit / WINDOW_S)
        bucket.at = now
        self._buckets[key] = bucket
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return bucket


def add_quota_headers(request: web.Request, response: web.StreamResponse) -> None:
    """`RateLimit-Policy` and `RateLimit` of the IETF's draft 11, if the caller's requests are limited."""
    if quota := request.get(QUOTA):
        response.headers["RateLimit-Policy"] = f'"requests";q={quota.limit};w={WINDOW_S}'
        response.headers["RateLimit"] = f'"requests";r={quota.left};t={quota.reset_s}'
