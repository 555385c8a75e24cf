"""A bucket of Google Cloud Storage by its plain JSON API: where a recording lies while Google Speech reads it.

The vendor's own client for it is synchronous and large, and three calls are all that is needed: put, get, delete.
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

from agents.asr.google.speech import load_credentials
from schemas.errors import ProviderError, RateLimited, SettingsError, Transient
from schemas.retry_after import seconds_of

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

#: Where Google's own storage answers.
GOOGLE: Final = "https://storage.googleapis.com"

#: Seconds for one call, and for which an upload may stand still.
TIMEOUT_S, STALL_S = 10.0, 60.0

#: Bytes of an upload that are held at once.
PORTION: Final = 1 << 18

#: All names of ours begin with it: the bucket may hold something else, too.
_FOLDER: Final = "concord/"

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"


class Bucket:
    """One bucket. All calls raise `Transient` (`RateLimited` for a pause) or `ProviderError`."""

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
        """`owner` begins every message. `endpoint` replaces Google's; by `http://` no token is ever sent there."""
        self._owner, self._bucket = owner, bucket
        #: What the URIs of our objects begin with, as Google Speech is told them.
        self._uris = f"gs://{bucket}/{_FOLDER}"
        self._base = (endpoint or GOOGLE).rstrip("/")
        self._file = credentials if self._base.startswith("https://") else None
        self._credentials: Credentials | None = None
        self._refreshing = asyncio.Lock()
        self._timeout_s, self._stall_s = timeout_s, max(timeout_s, stall_s)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def put(self, name: str, file: Path, content_type: str) -> str:
        """Store a file under a name that nothing has yet; its URI. A broken upload leaves nothing behind."""
        size = (await asyncio.to_thread(file.stat)).st_size
        try:
            async with asyncio.timeout(None) as limit:
                await self._put(name, _portions(file, limit, self._stall_s), size, content_type)
        except TimeoutError as exc:
            raise Transient(f"{self._owner}: {self._base} takes no more of an upload") from exc
        return self._uris + name

    async def delete(self, uri: str) -> None:
        """Delete an object that is ours; no error for one that is not there, or none of ours."""
        if uri.startswith(self._uris):
            with contextlib.suppress(_Absent):
                await self._call("DELETE", self._place(uri.removeprefix(self._uris)), "a deletion")

    async def check(self) -> None:
        """Put a few bytes, read and delete them: raises what a recording would meet."""
        name, content = f"probe-{secrets.token_hex(8)}", b"a probe"
        await self._put(name, content, len(content), "application/octet-stream")
        found = await self._call("GET", self._place(name), "reading", params={"alt": "media"})
        await self.delete(self._uris + name)
        if found != content:
            raise ProviderError(f"{self._owner}: what was put into gs://{self._bucket} came back as something else")

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _place(self, name: str) -> str:
        return f"/storage/v1/b/{self._bucket}/o/{quote(_FOLDER + name, safe='')}"

    async def _put(self, name: str, body: bytes | AsyncIterator[bytes], size: int, content_type: str) -> None:
        # No generation 0: there is no such object. What is there already, nobody overwrites.
        wanted = {"uploadType": "media", "name": _FOLDER + name, "ifGenerationMatch": "0"}
        told = {"Content-Type": content_type, "Content-Length": str(size)}
        place = f"/upload/storage/v1/b/{self._bucket}/o"
        await self._call("POST", place, "an upload", self._stall_s, params=wanted, headers=told, data=body)

    async def _call(
        self,
        method: str,
        place: str,
        what: str,
        silence_s: float | None = None,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> bytes:
        """One request; the body of a good answer. `silence_s`: until it answers, for what has no limit in all."""
        limits = aiohttp.ClientTimeout(sock_connect=self._timeout_s, sock_read=silence_s)
        try:
            async with asyncio.timeout(None if silence_s else self._timeout_s):
                headers = {**(headers or {}), **await self._authorization()}
                url = self._base + place
                async with self._opened().request(method, url, headers=headers, timeout=limits, **more) as response:
                    answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise Transient(f"{self._owner}: {self._base} does not answer {what} ({type(exc).__name__})") from exc
        if response.status >= 300:
            raise self._refusal(what, response, answer)
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
                said = f"{self._owner}: no token for gs://{self._bucket} ({type(exc).__name__}: {exc.args[:1]})"[:300]
                away = isinstance(exc, TransportError) or exc.retryable
                raise (Transient if away else ProviderError)(said) from exc
        return {"Authorization": f"Bearer {self._credentials.token}"}

    def _refusal(self, what: str, response: aiohttp.ClientResponse, answer: bytes) -> Exception:
        status, pause = response.status, seconds_of(response.headers)
        said = f"{self._owner}: {self._base} answered {status} to {what} in gs://{self._bucket}: {_message(answer)}"
        match status:
            case 429:
                return RateLimited(said, retry_after=pause)
            case 408 | 500 | 502 | 503 | 504:
                return Transient(said, retry_after=pause)
            case 401 | 403:
                advice = "give the account of GOOGLE_APPLICATION_CREDENTIALS the role Storage Object User on the bucket"
                return ProviderError(f"{said} ({advice})")
            case 404 if response.method == "DELETE":
                return _Absent(said)
            case 404:
                return ProviderError(f"{said} (is GOOGLE_CLOUD_BUCKET the bucket's name?)")
            case _:
                return ProviderError(said)


class _Absent(ProviderError):
    """The object is not there."""


async def _portions(file: Path, limit: asyncio.Timeout, stall_s: float) -> AsyncIterator[bytes]:
    """A file's bytes; the limit moves on with each portion that is taken, and not with the one that is not."""
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
    """Get a new token. In a thread: the vendor's asynchronous credentials do not know all kinds of key files."""
    from google.auth.transport.requests import Request

    credentials.refresh(partial(Request(), timeout=timeout_s))  # type: ignore[no-untyped-call]


def _message(answer: bytes) -> str:
    """What an error says, as JSON or as text."""
    try:
        said = json.loads(answer)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = answer.decode(errors="replace")
    return " ".join(str(said).split())[:200]
