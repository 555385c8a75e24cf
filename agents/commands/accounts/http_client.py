"""Calls a fleet's HTTP interface for commands, and turns its problems into sentences."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from schemas.errors import InvalidInput, NotFound, SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents.fleet.settings import Settings

#: Seconds for one answer.
ANSWER_S: Final = 30.0


class HttpClient:
    """A fleet's HTTP interface, with one key."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url.rstrip("/")

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; None where it has no body.

        Raises:
            NotFound: there is no such thing, for this key.
            InvalidInput: the request is refused; the text is the problem's detail.
            Unavailable: the fleet does not answer, or cannot.
        """
        try:
            async with self._session.request(method, f"{self._url}{path}", json=body) as response:
                content = await response.json(content_type=None) if response.status != 204 else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise Unavailable(f"{self._url} does not answer as a fleet does ({type(exc).__name__})") from exc
        if response.status < 400:
            return content
        detail = content.get("detail") if isinstance(content, dict) else None
        kind = NotFound if response.status == 404 else InvalidInput if response.status < 500 else Unavailable
        raise kind(f"{self._url}: {detail or response.reason}")


@contextlib.asynccontextmanager
async def http_client(settings: Settings) -> AsyncIterator[HttpClient]:
    """The fleet at CONCORD_URL, called with CONCORD_API_KEY.

    Raises:
        SettingsError: CONCORD_URL is not set.
    """
    if settings.url is None:
        raise SettingsError("CONCORD_URL is not set")
    headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"} if settings.api_key else {}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(ANSWER_S)) as session:
        yield HttpClient(session, settings.url)
        await asyncio.sleep(0)  # the session's connections end in the loop's next turn
