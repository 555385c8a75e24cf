"""One request to a tenant's endpoint: guarded as fetches of recordings are, bounded in time and in what is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from agents.media.source.audio_files import EXHAUSTED
from agents.media.source.audio_url import AllowedHosts, check_port, web_url
from agents.media.source.guarded_sockets import Addresses, GuardedSockets, guarded_connector, lookup, reason_of
from schemas.calls.retry_after import seconds_of
from schemas.errors import RefusedLocation, Unavailable
from schemas.texts import readable
from schemas.webhooks.rows import Attempt

#: Seconds that an endpoint may take for its whole answer.
TIMEOUT_S: Final = 15.0

#: Bytes of an answer that are read and kept.
ANSWER_BYTES: Final = 4096

#: Threads that resolve host names: one for each concurrent request.
LOOKUPS: Final = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """An attempt, and for how many seconds the endpoint asks us to wait."""

    attempt: Attempt
    retry_after: float | None = None


def check_endpoint(text: str, allowed: AllowedHosts) -> URL:
    """The URL of an endpoint that may be called: HTTPS, on a port that is no other protocol's, or an allowed host. Its
    addresses are checked where a socket is made.

    Raises:
        RefusedLocation: It may not be called.
    """
    url = web_url(text, field="url")
    if not allowed.allow(url):
        if url.scheme != "https":
            raise RefusedLocation("url: events are sent over https:// only")
        check_port(url, field="url")
    return url


@dataclass
class Poster:
    """Sends requests, each over a connection of its own; follows no redirects."""

    allowed: AllowedHosts
    timeout_s: float = TIMEOUT_S
    lookup: Callable[[str, int], Addresses] = lookup
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(LOOKUPS, "webhook-lookup"))

    async def close(self) -> None:
        """Release the threads, without waiting for name servers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send the body; whatever the endpoint does is an answer.

        Raises:
            Unavailable: This process cannot open a connection.
        """
        began = time.monotonic()

        def answer(status: int | None, error: str | None, text: str = "", after: float | None = None) -> Answer:
            duration_ms = (time.monotonic() - began) * 1000
            return Answer(Attempt(status=status, duration_ms=duration_ms, answer=text, error=error), after)

        try:
            target = check_endpoint(url, self.allowed)
            sockets = GuardedSockets(guarded=not self.allowed.allow(target))
            async with (
                asyncio.timeout(self.timeout_s),
                self._session(sockets) as session,
                session.post(target, data=body, headers=headers, allow_redirects=False) as response,
            ):
                text = readable((await _beginning(response)).decode(errors="replace"), ANSWER_BYTES)
                return answer(response.status, _error(response.status), text, seconds_of(response.headers))
        except RefusedLocation as exc:
            return answer(None, str(exc))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            if isinstance(exc, OSError) and exc.errno in EXHAUSTED:
                raise Unavailable(f"no connection can be made: {exc.strerror}") from exc
            refused = isinstance(exc, aiohttp.ClientConnectorError) and sockets.refused
            return answer(None, "its host is not a public one" if refused else reason_of(exc))

    def _session(self, sockets: GuardedSockets) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=guarded_connector(sockets, self._threads, self.lookup),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        )


def _error(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return f"it answered {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of the answer's body. The rest is not read: the connection is closed."""
    content = bytearray()
    async for chunk in response.content.iter_chunked(ANSWER_BYTES):
        content += chunk
        if len(content) >= ANSWER_BYTES:
            break
    return bytes(content[:ANSWER_BYTES])
