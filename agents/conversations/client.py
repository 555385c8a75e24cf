"""Asks ElevenLabs through its SDK, and translates every failure into Concord's errors. Every call only reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import urlsplit

from agents.conversations import answers
from agents.conversations.answers import Conversation, Listed, Page
from schemas.calls.api_keys import require_sendable
from schemas.calls.retry_after import seconds_of
from schemas.errors import (
    NotAccepted,
    ProviderError,
    RateLimited,
    TooLarge,
    Transient,
    UnknownConversation,
)

if TYPE_CHECKING:
    import httpx
    from elevenlabs.client import AsyncElevenLabs
    from elevenlabs.core.api_error import ApiError

URL: Final = "https://api.elevenlabs.io"

#: Seconds for one call that is no recording, and for a connection.
TIMEOUT_S, CONNECT_S = 15.0, 5.0

#: Seconds without progress, and in all, after which a recording is given up.
STALL_S, AUDIO_S = 20.0, 300.0

#: Bytes of an answer that is no recording: a conversation of a day has some megabytes.
MAX_ANSWER_BYTES: Final = 64 << 20

#: Bytes of a recording that are handled at once.
_PORTION: Final = 1 << 16

#: Conversations on a page of a list, ElevenLabs' largest.
_ON_A_PAGE: Final = 100

#: What the SDK raises where it builds its models of a body, which it does not validate.
_UNREADABLE: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError)

#: The responses that the call in this context has received.
_responses: ContextVar[list[httpx.Response] | None] = ContextVar("responses", default=None)


class CallRate(Protocol):
    """When calls may be made, agreed on by all workers; see `agents.asr.rate_limit.ProviderLimiter`."""

    async def wait(self) -> None:
        """Return when the next call may be made. Raises Paused within a pause."""

    async def failed(self, exc: Transient) -> None:
        """Report that a call failed; this may start a pause for all workers."""

    async def worked(self) -> None:
        """Report that a call was answered."""


class ElevenLabs:
    """One workspace's conversations."""

    def __init__(
        self, key: str, base_url: str | None = None, *, timeout_s: float = TIMEOUT_S, rate: CallRate | None = None
    ) -> None:
        """Nothing is imported or connected before the first call. Without a `rate`, calls are made at once.

        Raises:
            SettingsError: The key contains characters that an HTTP header cannot have.
        """
        require_sendable(key, "ELEVENLABS_API_KEY")
        self.url = (base_url or URL).rstrip("/")
        self._key, self._timeout_s, self._rate = key, timeout_s, rate
        self._client: AsyncElevenLabs | None = None
        self._connections: httpx.AsyncClient | None = None

    async def conversation(self, conversation_id: str) -> Conversation:
        """The conversation as it is now.

        Raises:
            UnknownConversation: There is none with this id.
            ProviderError: The key is refused, or the request.
            NotAccepted: ElevenLabs cannot be reached, is overloaded, or asks for a pause (Paused: some worker was
                asked for one).
            Transient: There was no usable answer.
            Unavailable: Our own database is away, in which workers agree on the rate.
        """
        client, operation = await self._opened(), f"the conversation {conversation_id}"
        async with self._called(operation, absent=UnknownConversation):
            asked = client.conversational_ai.conversations.get(
                conversation_id, request_options=_options(self._timeout_s)
            )
            content = await self._answer(asked)
        # In a thread: a long conversation has thousands of turns.
        return await asyncio.to_thread(answers.conversation, content)

    async def save_audio(self, conversation_id: str, path: Path, max_bytes: int) -> bool:
        """Write the conversation's recording, an MP3, to a file; False if it has none.

        Raises:
            TooLarge: It has more than `max_bytes`.
            Transient: The stream was cut, too, which the SDK never repeats. Else as `conversation` does.
        """
        client, operation = await self._opened(), f"the recording of {conversation_id}"
        try:
            async with self._called(operation, absent=_NoAudio):
                async with asyncio.timeout(AUDIO_S):
                    stream = client.conversational_ai.conversations.audio.get(
                        conversation_id, request_options=_options(STALL_S) | {"chunk_size": _PORTION}
                    )
                    async with contextlib.aclosing(stream):
                        return await _saved(stream, path, max_bytes)
        except _NoAudio:
            return False

    async def listed(self, agent_id: str, after: datetime) -> AsyncIterator[Listed]:
        """The conversations of an agent that have begun since then, of all pages. A cursor that comes again ends it.
        Raises as `conversation` does.
        """
        seen: set[str | None] = set()
        cursor: str | None = None
        while cursor not in seen:
            seen.add(cursor)
            page = await self._page(agent_id=agent_id, call_start_after_unix=int(after.timestamp()), cursor=cursor)
            for one in page.conversations:
                yield one
            if page.cursor is None:
                return
            cursor = page.cursor

    async def check(self) -> None:
        """Ask for one conversation, whichever. Raises as `conversation` does."""
        await self._page(page_size=1)

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        connections, self._connections, self._client = self._connections, None, None
        if connections is not None:
            await connections.aclose()

    async def _page(self, **query: Any) -> Page:
        client = await self._opened()
        async with self._called("the list of conversations", absent=ProviderError):
            asked = client.conversational_ai.conversations.list(
                **{"page_size": _ON_A_PAGE} | query, request_options=_options(self._timeout_s)
            )
            content = await self._answer(asked)
        return answers.page(content)

    async def _answer(self, asked: Awaitable[object]) -> bytes:
        """The body of a successful answer. The SDK's models are not used: some values make them fail."""
        responses: list[httpx.Response] = []
        before = _responses.set(responses)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asked
        except _UNREADABLE:
            if not responses or not responses[-1].is_success:
                raise
        finally:
            _responses.reset(before)
        return responses[-1].content

    async def _opened(self) -> AsyncElevenLabs:
        # In a thread: the first import takes a second or two and would block the event loop.
        sdk, httpx = await asyncio.to_thread(_sdk)
        if self._client is None:
            timeout = httpx.Timeout(self._timeout_s, connect=CONNECT_S)
            # Redirects would take the key to another host. What is compressed would have no bound.
            plain = {"Accept-Encoding": "identity"}
            self._connections = httpx.AsyncClient(timeout=timeout, follow_redirects=False, headers=plain)
            self._connections.event_hooks["response"].append(_received)
            self._client = sdk(
                api_key=self._key, base_url=self.url, timeout=self._timeout_s, httpx_client=self._connections
            )
        return self._client

    @contextlib.asynccontextmanager
    async def _called(self, operation: str, absent: type[Exception]) -> AsyncIterator[None]:
        """One call, when it may be made; all workers learn how it went. Errors as `_errors_translated` has them."""
        if self._rate is None:
            with self._errors_translated(operation, absent):
                yield
            return
        await self._rate.wait()
        try:
            with self._errors_translated(operation, absent):
                yield
        except Transient as exc:
            await self._rate.failed(exc)
            raise
        except Exception:  # an answer, too
            await self._rate.worked()
            raise
        await self._rate.worked()

    @contextlib.contextmanager
    def _errors_translated(self, operation: str, absent: type[Exception]) -> Iterator[None]:
        """Raise our own errors for those of the SDK and its transport, `absent` for 404. None contains the key."""
        import httpx
        from elevenlabs.core.api_error import ApiError

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            host = urlsplit(self.url).netloc.rpartition("@")[2]
            raise NotAccepted(f"ElevenLabs cannot be reached at {host} ({self._safe(exc)})") from None
        except (httpx.TimeoutException, TimeoutError):
            raise Transient(f"ElevenLabs does not deliver {operation} in time") from None
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise Transient(f"ElevenLabs broke off {operation} ({type(exc).__name__})") from None
        except ApiError as exc:
            raise self._refusal(operation, exc, absent) from None
        except _UNREADABLE as exc:
            raise Transient(f"ElevenLabs' answer about {operation} cannot be read ({type(exc).__name__})") from None

    def _refusal(self, operation: str, exc: ApiError, absent: type[Exception]) -> Exception:
        status, pause_s = exc.status_code or 0, seconds_of(_titled(exc.headers or {}))
        message = f"ElevenLabs answered {status} about {operation}: {self._safe(exc).rstrip('.')}"
        if status == 404:
            return absent(f"{message}. Is its id right, and the key of the workspace that has it?")
        if status in (401, 403):
            return ProviderError(f"{message} (the key in ELEVENLABS_API_KEY is refused, or may not do this)")
        if status == 429:
            return RateLimited(message, retry_after=pause_s)
        if status == 503:
            return NotAccepted(message, retry_after=pause_s)
        if status >= 500 or status in (408, 409, 425) or status < 400:
            return Transient(message, retry_after=pause_s)
        return ProviderError(message)

    def _safe(self, exc: Exception) -> str:
        """The error in one short line, without the key, which a proxy may have echoed."""
        body = getattr(exc, "body", None)
        text = (_detail(body) if body else str(exc)) or type(exc).__name__
        return " ".join(text.replace(self._key, "...").split())[:200]


class _NoAudio(Exception):
    """There is no recording."""


async def _saved(stream: AsyncIterator[bytes], path: Path, max_bytes: int) -> bool:
    size = 0
    with path.open("wb") as file:
        async for portion in stream:
            size += len(portion)
            if size > max_bytes:
                raise TooLarge(f"the conversation's recording has more than {max_bytes / (1 << 20):g} MB")
            await asyncio.to_thread(file.write, portion)
    return size > 0


def _options(timeout_s: float) -> Any:
    """No retries of the SDK's: they are ours, and are rows and not pauses."""
    return {"max_retries": 0, "timeout_in_seconds": timeout_s}


async def _received(response: httpx.Response) -> None:
    """Hand the response to the call that it answers: httpx runs hooks in its context. Read no more than is bounded."""
    responses = _responses.get()
    if responses is not None:
        responses.append(response)
    if not response.request.url.path.endswith("/audio"):
        from agents.conversations.bounded import Bounded

        response.stream = Bounded(cast("httpx.AsyncByteStream", response.stream), MAX_ANSWER_BYTES)


def _titled(headers: dict[str, str]) -> dict[str, str]:
    """The headers by the names that they have in standards; httpx has them in lower case."""
    return {name.title(): value for name, value in headers.items()}


def _detail(body: Any) -> str:
    """ElevenLabs' own words about an error: `{"detail": {"status": ..., "message": ...}}`, or anything else."""
    detail = body.get("detail", body) if isinstance(body, dict) else body
    if isinstance(detail, dict):
        detail = detail.get("message") or detail.get("status")
    return detail if isinstance(detail, str) else ""


def _sdk() -> tuple[Any, Any]:
    # What the client would import at its first call, in the event loop.
    import httpx
    from elevenlabs.client import AsyncElevenLabs

    return AsyncElevenLabs, httpx
