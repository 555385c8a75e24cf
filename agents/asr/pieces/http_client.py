"""HTTP calls to a vendor with an API key: limits of time and size, and every failure as one of ours.

The vendors' own SDKs are not used for these calls. Each is one POST of sound and one JSON answer; the SDKs repeat a
request whose answer was lost, which is billed, hold whole files in memory, and bring 5 to 19 MB of models that are not
validated.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import aiohttp

from schemas.calls.api_keys import require_sendable
from schemas.calls.retry_after import seconds_of
from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient

#: Seconds to connect, and for a call without sound.
CONNECT_S: Final = 10.0
#: Seconds for a piece. Long, because a call whose answer comes too late is paid for.
PIECE_S: Final = 90.0
#: Seconds for a whole recording: what vendors take for ten hours, and some for the upload.
WHOLE_S: Final = 1800.0
#: Bytes of an answer at most: ten hours of words have 20 MB.
LONGEST: Final = 64 << 20
#: Seconds after which an unused connection is closed: before the vendor closes it, which a request would find out late.
IDLE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Account:
    """Where a vendor is, and how it knows us."""

    name: str
    base_url: str
    key: str = field(repr=False)
    #: The header with the key, and what stands before it there: "Bearer ".
    header: str = "Authorization"
    scheme: str = ""
    #: The variables with the key and the address, for error texts.
    variables: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        """Raises `SettingsError` if the key has characters that an HTTP header cannot have."""
        if self.key:  # a server of one's own may need none
            require_sendable(self.key, self.variables[0])


class HTTPClient:
    """One vendor's client. Connects at the first call."""

    def __init__(self, account: Account, *, piece_s: float = PIECE_S, whole_s: float = WHOLE_S) -> None:
        """`piece_s` and `whole_s` limit a request with a piece and with a whole recording, in seconds."""
        self.account = account
        self._piece_s, self._whole_s = piece_s, whole_s
        self._base = account.base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def send(self, path: str, sound: Path | bytes, options: Callable[[BinaryIO], dict[str, Any]]) -> bytes:
        """POST sound; the body of a successful answer. `options` makes arguments of `call` from it."""
        if isinstance(sound, bytes):
            return await self.call("POST", path, "a piece", timeout_s=self._piece_s, **options(io.BytesIO(sound)))
        with sound.open("rb") as file:
            return await self.call("POST", path, "a recording", timeout_s=self._whole_s, **options(file))

    async def call(
        self, method: str, path: str, operation: str, *, timeout_s: float = CONNECT_S, **options: Any
    ) -> bytes:
        """Make one request; the body of a successful answer. `operation` names it in error texts.

        Raises:
            NotAccepted: No connection could be made.
            RateLimited: The vendor asks for a pause.
            Transient: There was no usable answer; the vendor may have accepted the request.
            ProviderError: The vendor refused the request, or its answer is too long.
        """
        headers = {self.account.header: self.account.scheme + self.account.key} if self.account.key else {}
        headers |= options.pop("headers", {})
        with self._failures(operation, timeout_s):
            async with asyncio.timeout(timeout_s):
                request = self._opened().request(
                    method, self._base + path, headers=headers, allow_redirects=False, **options
                )
                async with request as response:
                    answer = await self._body(response, operation)
        if response.status != 200:
            raise self._refusal(operation, response.status, response.headers, answer)
        return answer

    async def close(self) -> None:
        """Close all connections. Safe to call twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise NotAccepted(f"{self.account.name} is shut down")
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S)
            self._session = aiohttp.ClientSession(timeout=limits, connector=connector)
        return self._session

    async def _body(self, response: aiohttp.ClientResponse, operation: str) -> bytes:
        portions, size = [], 0
        async for portion in response.content.iter_any():
            size += len(portion)
            if size > LONGEST:
                raise ProviderError(f"{self.account.name} answered {operation} with more than {LONGEST >> 20} MB")
            portions.append(portion)
        return b"".join(portions)

    @contextmanager
    def _failures(self, operation: str, timeout_s: float) -> Iterator[None]:
        """Raise our own errors for those of the transport."""
        name = self.account.name
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            host = urlsplit(self._base).netloc.rpartition("@")[2]
            raise NotAccepted(f"{name} cannot be reached at {host} ({self._safe(str(exc))})") from exc
        except aiohttp.InvalidURL:
            raise ProviderError(f"{name}: {self.account.variables[1]} is no URL") from None
        except TimeoutError:
            raise Transient(f"{name} did not answer {operation} within {timeout_s:.0f} s") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise Transient(f"{name} broke off {operation} ({type(exc).__name__})") from exc

    def _refusal(self, operation: str, status: int, headers: Mapping[str, str], answer: bytes) -> Exception:
        said, code = _error(answer)
        message = f"{self.account.name} answered {status} to {operation}: {self._safe(said)}"
        pause_s = seconds_of(headers)
        key, url = self.account.variables
        match status:
            case 429 if code == "insufficient_quota":
                return ProviderError(message)
            case 429:
                return RateLimited(message, retry_after=pause_s)
            case 401 | 403:
                return Refused(f"{message} (is the key in {key} right, and may it do this?)", code)
            case 402:
                return Refused(f"{message} (the account of {key} has no credit)", code)
            case 408 | 409 | 425:
                return Transient(message, retry_after=pause_s)
            case _ if status >= 500 or 200 < status < 300:
                return Transient(message, retry_after=pause_s)
            case _ if 300 <= status < 400:
                return ProviderError(f"{message} (is {url} the API's address?)")
            case _:
                return Refused(message, code)

    def _safe(self, text: str) -> str:
        """A vendor's text in one short line, without the API key, which a proxy may have echoed."""
        text = " ".join(text.split())
        return (text.replace(self.account.key, "...") if self.account.key else text)[:200]


class Refused(ProviderError):
    """The vendor answered with an error that is the request's or the account's."""

    def __init__(self, message: str, vendor_code: str) -> None:
        super().__init__(message)
        #: The vendor's own code of the error; "" if it gives none.
        self.vendor_code = vendor_code


def _error(answer: bytes) -> tuple[str, str]:
    """The message and the code of an error, as far as it has them, in any of the forms that vendors use."""
    try:
        body = json.loads(answer)
    except (ValueError, RecursionError):
        return answer[:1000].decode(errors="replace"), ""
    error = body.get("error") or body.get("detail") or body if isinstance(body, dict) else body
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, dict):
        return str(error), ""
    named = [error[name] for name in ("message", "err_msg", "msg", "details") if isinstance(error.get(name), str)]
    codes = [error[name] for name in ("code", "status", "err_code") if isinstance(error.get(name), str)]
    return named[0] if named else json.dumps(error)[:1000], codes[0] if codes else ""
