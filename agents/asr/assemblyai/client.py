"""Sends requests to AssemblyAI through the vendor's SDK, and translates every failure into Concord's errors."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

import assemblyai as aai
import httpx

from schemas.calls.api_keys import require_sendable
from schemas.calls.retry_after import seconds_of
from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient

#: Seconds for one call that is no upload, and for all pages of a search together: below the 15 that a call may take.
TIMEOUT_S: Final = 10.0

#: Seconds without progress, and in all, after which an upload is given up (2.2 GB, the vendor's limit, at 10 Mbit/s).
STALL_S, UPLOAD_S = 60.0, 1800.0

#: Milliseconds for which the operating system tries to deliver sent data over a broken network (`TCP_USER_TIMEOUT`),
#: even after the call was given up. Without a limit it retries for minutes: longer than the time in which a submission
#: is assumed to arrive (`ACCEPTS_S`).
DELIVERY_MS: Final = 20_000

#: The responses that the call in this context received; the SDK's own `last_response` is shared by all calls.
_responses: ContextVar[list[httpx.Response] | None] = ContextVar("responses", default=None)


class Client:
    """The SDK's HTTP clients for one API key: one for uploads, one for all other calls."""

    def __init__(self, provider: str, key: str, base_url: str | None, timeout_s: float) -> None:
        """`provider` begins every error text. Nothing is sent yet.

        Raises:
            SettingsError: The key contains characters that an HTTP header cannot have.
        """
        require_sendable(key, "ASSEMBLYAI_API_KEY")
        self._provider, self._key, self._timeout_s = provider, key, timeout_s
        settings = aai.Settings(api_key=key, http_timeout=timeout_s)
        settings.base_url = (base_url or "https://api.assemblyai.com").rstrip("/")
        #: Of the vendor's API, without a slash at its end.
        self.base_url = settings.base_url
        self._calls = _sdk_client(settings)
        self._calls.http_client.event_hooks["request"].append(_trace_connections)
        # Uploads have connections of their own: they may be silent for longer, and would occupy those of other calls.
        self._uploads = _sdk_client(settings.model_copy(update={"http_timeout": max(STALL_S, timeout_s)}))

    async def upload(self, call: Callable[[httpx.AsyncClient], Awaitable[object]]) -> object:
        """Make an upload; the decoded JSON of its answer. Raises as `call` does."""
        return await self._request("an upload", call, self._uploads.http_client, UPLOAD_S)

    async def call(self, operation: str, call: Callable[[httpx.AsyncClient], Awaitable[object]]) -> object:
        """Make one request that is no upload; the decoded JSON of a 200. `operation` names it in error texts.

        Raises:
            NotAccepted: No connection could be made, so the vendor has not received the request.
            RateLimited: The vendor answered 429.
            Transient: There was no usable answer; the vendor may have accepted the request.
            ProviderError: The vendor refused the request.
        """
        return await self._request(operation, call, self._calls.http_client, self._timeout_s)

    async def close(self) -> None:
        """Close all connections. Safe to call twice."""
        await self._calls.aclose()
        await self._uploads.aclose()

    def without_secrets(self, text: str) -> str:
        """A vendor's message without the API key and without the queries of URLs, which contain signatures."""
        return re.sub(r"\?[^\s\"'<>]*", "?...", text.replace(self._key, "..."))[:300]

    async def _request(
        self,
        operation: str,
        call: Callable[[httpx.AsyncClient], Awaitable[object]],
        http_client: httpx.AsyncClient,
        timeout_s: float,
    ) -> object:
        responses: list[httpx.Response] = []
        before = _responses.set(responses)
        try:
            async with asyncio.timeout(timeout_s):
                await call(http_client)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            host = urlsplit(self.base_url).netloc.rpartition("@")[2]
            reason = self.without_secrets(str(exc) or type(exc).__name__)
            raise NotAccepted(f"{self._provider} cannot be reached at {host} ({reason})") from exc
        except (httpx.TimeoutException, TimeoutError) as exc:
            raise Transient(f"{self._provider} does not answer {operation} in time") from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise Transient(f"{self._provider} broke off {operation} ({type(exc).__name__})") from exc
        except aai.types.AssemblyAIError:
            # Not chained: its message may contain the audio's URL, by which anybody can download the recording.
            raise self._refusal(operation, responses[-1]) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            # With a response, the SDK's models rejected its content, which is not used: see `answers`.
            if not responses:
                raise
        finally:
            _responses.reset(before)
        return self._json(operation, responses[-1])

    def _json(self, operation: str, response: httpx.Response) -> object:
        try:
            return response.json()
        except ValueError:
            raise Transient(f"{self._provider} answered {operation} with a body that is no JSON") from None

    def _refusal(self, operation: str, response: httpx.Response) -> Exception:
        status, pause_s = response.status_code, seconds_of(response.headers)
        message = f"{self._provider} answered {status} to {operation}: {self.without_secrets(_error_text(response))}"
        if status == 429:
            return RateLimited(message, retry_after=pause_s)
        if status >= 500 or status == 408 or status < 400:  # the SDK accepts 200 only; other 2xx and 3xx are ambiguous
            return Transient(message, retry_after=pause_s)
        if status in (401, 403):
            return ProviderError(f"{message} (the key in ASSEMBLYAI_API_KEY is refused)")
        return (Rejected if status in (400, 404) else ProviderError)(message)


class Rejected(ProviderError):
    """The vendor answered 400 or 404: this request is wrong, or what it names does not exist."""


def _sdk_client(settings: aai.Settings) -> aai.AsyncClient:
    client = aai.AsyncClient(settings=settings)
    client.http_client.event_hooks["response"].append(_record_response)
    return client


async def _record_response(response: httpx.Response) -> None:
    """Hand the response to the call that it answers; httpx runs hooks in that call's context."""
    responses = _responses.get()
    if responses is not None:
        responses.append(response)


async def _trace_connections(request: httpx.Request) -> None:
    request.extensions["trace"] = _limit_delivery


async def _limit_delivery(event: str, info: Mapping[str, Any]) -> None:
    """Set `TCP_USER_TIMEOUT` on a new connection; see `DELIVERY_MS`. Only Linux has this option."""
    if event == "connection.connect_tcp.complete" and hasattr(socket, "TCP_USER_TIMEOUT"):
        connection = info["return_value"].get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DELIVERY_MS)


def _error_text(response: httpx.Response) -> str:
    """The `error` of a JSON answer, or the beginning of any other body."""
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return response.text[:1000]
    return str(error)
