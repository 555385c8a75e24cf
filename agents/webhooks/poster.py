"""One request to a tenant's endpoint: guarded as fetches of recordings are, bounded in time and in what is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from agents.media.source.audio_files import EXHAUSTED
from agents.media.source.audio_url import AllowedHosts, check_reachable, web_url
from agents.media.source.guarded_sockets import Addresses, GuardedClient, lookup, reason_of
from schemas.calls.retry_after import seconds_of
from schemas.errors import RefusedLocation, Unavailable
from schemas.texts import readable
from schemas.webhooks.rows import Attempt

#: Seconds that an endpoint may take for its whole answer.
TIMEOUT_S: Final = 15.0

#: Bytes of an answer that are read and kept.
ANSWER_BYTES: Final = 4096

#: The field of an endpoint that errors name.
_FIELD: Final = "url"


@dataclass(frozen=True, slots=True)
class Answer:
    """An attempt, and for how many seconds the endpoint asks us to wait."""

    attempt: Attempt
    retry_after: float | None = None


def check_endpoint(text: str, allowed: AllowedHosts) -> URL:
    """The URL of an endpoint to which events may be sent.

    Raises:
        RefusedLocation: It is none.
    """
    url = web_url(text, field=_FIELD)
    check_reachable(url, allowed, field=_FIELD)
    return url


class Poster:
    """Sends events to endpoints."""

    def __init__(
        self,
        allowed: AllowedHosts,
        timeout_s: float = TIMEOUT_S,
        lookup: Callable[[str, int], Addresses] = lookup,
    ) -> None:
        self._client = GuardedClient(allowed, _FIELD, lookup)
        self._timeout_s = timeout_s
        self.close = self._client.close

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
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.request("POST", web_url(url, field=_FIELD), data=body, headers=headers) as response,
            ):
                text = readable((await _beginning(response)).decode(errors="replace"), ANSWER_BYTES)
                return answer(response.status, _error(response.status), text, seconds_of(response.headers))
        except RefusedLocation as exc:
            return answer(None, str(exc))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            if isinstance(exc, OSError) and exc.errno in EXHAUSTED:
                raise Unavailable(f"no connection can be made: {exc.strerror}") from exc
            return answer(None, reason_of(exc))


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
