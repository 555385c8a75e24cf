"""Other workers: a job's row lives in one worker's table, and whoever is asked about it asks that one."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

import aiohttp
from pydantic import ValidationError
from yarl import URL

from schemas.events import JobStatus
from web.auth import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from schemas.ids import Key

log = logging.getLogger(__name__)

#: Marks a request that one worker passes to another, which then answers from what it has itself.
FORWARDED: Final = "X-Concord-Forwarded"

#: Seconds for which a worker that did not answer is not asked again: about as long as a rebalance takes to replace it.
SHUN_S: Final = 2.0


def passport(headers: Mapping[str, str]) -> dict[str, str] | None:
    """The headers with which a request may be passed on; None if it was passed on already, for it never is twice."""
    if FORWARDED in headers:
        return None
    return {name: headers[name] for name in CREDENTIALS if name in headers} | {FORWARDED: "1"}


class Owners:
    """Asks other workers. None from any of these methods means: no usable answer, ask PostgreSQL."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        #: When each worker that did not answer may be asked again.
        self._shunned: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connections to other workers, for as long as the context lasts."""
        async with aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._session:
            yield
        self._session = None

    async def status(self, owner: str, key: Key, credentials: Mapping[str, str]) -> JobStatus | None:
        """What the worker at this base URL says of a job."""
        if self._session is None or self._shunned.get(owner, 0.0) > self._clock():
            return None
        tenant, job_id = key
        url = URL(owner) / "jobs" / job_id / "status" % {"tenant": tenant}
        try:
            async with self._session.get(url, headers=credentials, allow_redirects=False) as response:
                return _status(key, await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as exc:
            log.info("%s did not answer (%s); PostgreSQL does for %.0f s", owner, type(exc).__name__, SHUN_S)
            self._shun(owner)
            return None

    def _shun(self, owner: str) -> None:
        now = self._clock()
        self._shunned = {other: until for other, until in self._shunned.items() if until > now} | {owner: now + SHUN_S}


def _status(key: Key, body: bytes) -> JobStatus | None:
    try:
        status = JobStatus.model_validate_json(body)
    except ValidationError:
        return None
    tenant, name = key
    return status if status.tenant_id == tenant and name in (status.job_id, status.reference) else None
