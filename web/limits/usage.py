"""Counts the requests of each API key by route, status class and minute, and when each key was last used.

What is counted is written every few seconds; a worker that is killed loses what it had not written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from schemas.accounts.api_usage import UsedRoute
from schemas.errors import Unavailable
from schemas.ids import EVERY_TENANT
from sinks.ports.accounts.api_usage import ApiUsage
from sinks.ports.accounts.keys import Keys
from web.middleware.request_state import CALLER, OPERATION

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

#: Seconds between two writes, and for the last one; and different counts that are kept while the database is away.
WRITE_S, LAST_S = 10.0, 2.0
MOST: Final = 20_000


class Counts(ApiUsage, Keys, Protocol):
    """What is asked of the database."""


class UsageCounter:
    """What is counted and not written yet."""

    def __init__(self, stored: Counts) -> None:
        self._stored = stored
        #: By the fields of a `UsedRoute`, with the minutes since 1970 for its last.
        self._counts: dict[tuple[str, str, str, int, int], int] = {}

    def count(self, request: web.Request, status: int) -> None:
        """Count an answered request, if it has a caller with an id of its own."""
        caller, route = request.get(CALLER), request.get(OPERATION)
        if caller is None or route is None or not caller.whose:
            return
        tenant = "*" if caller.whose is EVERY_TENANT else caller.whose
        used = tenant, caller.id, route, status // 100, int(time.time()) // 60
        counted = self._counts.get(used, 0)
        if counted or len(self._counts) < MOST:
            self._counts[used] = counted + 1

    async def run(self) -> None:
        """Write every `WRITE_S` seconds until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(WRITE_S)
                await self.write()
        finally:
            async with asyncio.timeout(LAST_S):
                await self.write()

    async def write(self) -> None:
        """Write what was counted. While the database is away it is kept."""
        taken, self._counts = self._counts, {}
        if not taken:
            return
        counts = {
            UsedRoute(tenant, key, route, status, datetime.fromtimestamp(minute * 60, UTC)): count
            for (tenant, key, route, status, minute), count in taken.items()
        }
        try:
            await self._stored.touch_keys({used.key_id for used in counts if used.key_id.startswith("ck_")})
            await self._stored.count_requests(counts)
        except Unavailable as exc:
            log.debug("requests are counted later: %s", exc)
            for used, count in taken.items():
                self._counts[used] = self._counts.get(used, 0) + count
