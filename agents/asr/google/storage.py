"""A bucket of Google Cloud Storage, from which Google Speech reads recordings, by its JSON API.

The vendor's client for it is synchronous and large, and only three calls are needed: put, get, delete.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp

from agents.asr.google.credentials import load_credentials
from schemas.calls.retry_after import seconds_of
from schemas.errors import ProviderError, RateLimited, SettingsError, Transient

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

#: Google's own endpoint.
GOOGLE: Final = "https://storage.googleapis.com"

#: Seconds for one call, and seconds without progress after which an upload is given up.
TIMEOUT_S, STALL_S = 10.0, 60.0

#: Bytes of an upload that are held at once.
PORTION: Final = 1 << 18

#: The beginning of the names of all our objects: the bucket may contain others, too.
_FOLDER: Final = "concord/"

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"


class Bucket:
    """One bucket. All calls raise `Transient` (`RateLimited` if a pause is asked for) or `ProviderError`."""

    def __init__(
        self,
        owner: str,
        bucket: str,
        *,
        endpoint: str | None = None,
        credentials: Path | None = None,
        timeout_s: float = TIMEOUT_S,
        stall_s: float = STALL_S,
    ) -> None:
        """`owner` begins every error text. `endpoint` replaces Google's; with `http://`, no token is sent to it."""
        self._owner, self._bucket = owner, bucket
        #: The beginning of the URIs of our objects.
        self._uris = f"gs://{bucket}/{_FOLDER}"
        self._base = (endpoint or GOOGLE).rstrip("/")
        self._file = credentials if self._base.startswith("https://") else None
        self._credentials: Credentials | None = None
        self._refreshing = asyncio.Lock()
        self._timeout_s, self._stall_s = timeout_s, max(timeout_s, stall_s)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def put(self, name: str, file: Path, content_type: str) -> str:
        """Store a file under an unused name; returns its URI. A failed one stores nothing. Raises as `Bucket` says."""
        size = (await asyncio.to_thread(file.stat)).st_size
        try:
            async with asyncio.timeout(None) as limit:
                await self._put(name, _portions(file, limit, self._stall_s), size, content_type)
        except TimeoutError as exc:
            raise Transient(f"{self._owner}: {self._base} takes no more of an upload") from exc
        return self._uris + name

    async def delete(self, uri: str) -> None:
        """Delete an object of ours. Does nothing if it does not exist, or is none of ours."""
        if uri.startswith(self._uris):
            with contextlib.suppress(_Absent):
                await self._call("DELETE", self._path(uri.removeprefix(self._uris)), "a deletion")

    async def check(self) -> None:
        """Store a few bytes, read them, and delete them. Raises as the calls for a recording would."""
        name, content = f"probe-{secrets.token_hex(8)}", b"a probe"
        await self._put(name, content, len(content), "application/octet-stream")
        stored = await self._call("GET", self._path(name), "reading", params={"alt": "media"})
        await self.delete(self._uris + name)
        if stored != content:
            raise ProviderError(f"{self._owner}: an object in gs://{self._bucket} was read back as something else")

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _path(self, name: str) -> str:
        """The path of an object in the API."""
        return f"/storage/v1/b/{self._bucket}/o/{quote(_FOLDER + name, safe='')}"

    async def _put(self, name: str, body: bytes | AsyncIterator[bytes], size: int, content_type: str) -> None:
        # Generation 0 is that of an object that does not exist: an existing object is never overwritten.
        parameters = {"uploadType": "media", "name": _FOLDER + name, "ifGenerationMatch": "0"}
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        path = f"/upload/storage/v1/b/{self._bucket}/o"
        await self._call("POST", path, "an upload", self._stall_s, params=parameters, headers=headers, data=body)

    async def _call(
        self,
        method: str,
        path: str,
        operation: str,
        read_s: float | None = None,
        *,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> bytes:
        """Make one request; the body of a successful answer. `operation` names it in error texts.

        With `read_s`, only the wait for the answer is limited, not the whole request.
        """
        limits = aiohttp.ClientTimeout(sock_connect=self._timeout_s, sock_read=read_s)
        try:
            async with asyncio.timeout(None if read_s else self._timeout_s):
                headers = {**(headers or {}), **await self._authorization()}
                url = self._base + path
                async with self._opened().request(method, url, headers=headers, timeout=limits, **options) as response:
                    answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise Transient(f"{self._owner}: {self._base} does not answer {operation} ({type(exc).__name__})") from exc
        if response.status >= 300:
            raise self._refusal(operation, response, answer)
        return answer

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Transient(f"{self._owner} is shut down")
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    async def _authorization(self) -> dict[str, str]:
        if self._file is None:
            return {}
        from google.auth.exceptions import GoogleAuthError, TransportError

        async with self._refreshing:
            try:
                if self._credentials is None:
                    self._credentials = await asyncio.to_thread(_scoped, self._file)
                if not self._credentials.valid:
                    await asyncio.to_thread(_refresh, self._credentials, self._timeout_s)
            except SettingsError as exc:
                raise ProviderError(f"{self._owner}: {exc}") from exc
            except GoogleAuthError as exc:
                message = f"{self._owner}: no token for gs://{self._bucket} ({type(exc).__name__}: {exc.args[:1]})"
                may_pass = isinstance(exc, TransportError) or exc.retryable
                raise (Transient if may_pass else ProviderError)(message[:300]) from exc
        return {"Authorization": f"Bearer {self._credentials.token}"}

    def _refusal(self, operation: str, response: aiohttp.ClientResponse, answer: bytes) -> Exception:
        status, pause_s = response.status, seconds_of(response.headers)
        answered = f"{self._base} answered {status} to {operation} in gs://{self._bucket}"
        message = f"{self._owner}: {answered}: {_message(answer)}"
        match status:
            case 429:
                return RateLimited(message, retry_after=pause_s)
            case 408 | 500 | 502 | 503 | 504:
                return Transient(message, retry_after=pause_s)
            case 401 | 403:
                advice = "give the account of GOOGLE_APPLICATION_CREDENTIALS the role Storage Object User on the bucket"
                return ProviderError(f"{message} ({advice})")
            case 404 if response.method == "DELETE":
                return _Absent(message)
            case 404:
                return ProviderError(f"{message} (is GOOGLE_CLOUD_BUCKET the bucket's name?)")
            case _:
                return ProviderError(message)


class _Absent(ProviderError):
    """The object does not exist."""


async def _portions(file: Path, limit: asyncio.Timeout, stall_s: float) -> AsyncIterator[bytes]:
    """A file's bytes. Each portion that is sent extends the timeout by `stall_s`."""
    clock = asyncio.get_running_loop().time
    with file.open("rb") as opened:
        while portion := await asyncio.to_thread(opened.read, PORTION):
            limit.reschedule(clock() + stall_s)
            yield portion
    limit.reschedule(clock() + stall_s)


def _scoped(file: Path) -> Credentials:
    from google.auth.credentials import with_scopes_if_required

    return with_scopes_if_required(load_credentials(file), [_SCOPE])  # type: ignore[no-untyped-call,no-any-return]


def _refresh(credentials: Credentials, timeout_s: float) -> None:
    """Get a new token. Blocks: the vendor's asynchronous credentials do not support all kinds of key files."""
    from google.auth.transport.requests import Request

    credentials.refresh(partial(Request(), timeout=timeout_s))  # type: ignore[no-untyped-call]


def _message(answer: bytes) -> str:
    """The message of an error in JSON, or the text of another answer, shortened."""
    try:
        message = json.loads(answer)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.decode(errors="replace")
    return " ".join(str(message).split())[:200]
