"""Downloads a recording from a tenant's URL: with SSRF protection, with limits on size, time and rate, and with errors
that distinguish failures of the host from failures of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from agents.media.source.audio_files import EXHAUSTED
from agents.media.source.audio_url import AllowedHosts, host_of, web_url
from agents.media.source.guarded_sockets import Addresses, GuardedClient, lookup, reason_of
from schemas.calls.retry_after import seconds_of
from schemas.errors import RefusedLocation, RefusedMedia, Transient, Unavailable

#: Redirects that are followed, at most.
REDIRECTS: Final = 5

_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
#: Statuses after which the download is tried again, as after every 5xx: the recording is not there yet (producers
#: announce recordings that they are still uploading), or the host is busy.
_PASSING: Final = frozenset({202, 404, 408, 423, 425, 429})

#: Content encodings that zlib decompresses. Some hosts use them although none was requested.
_ZIPPED: Final = frozenset({"gzip", "x-gzip", "deflate"})

_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "Concord"}

#: Bytes that are written, or decompressed, at once.
_PORTION: Final = 1 << 18

#: The beginning of a web page, such as a login page that is sent in place of a recording.
_PAGE: Final = re.compile(rb"\s*(<!--.{,200}?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How slow a host may be. A slower one would occupy a fetch slot for which other jobs wait."""

    #: Seconds until the headers of the answer arrive, all redirects included; for one connection; for one read.
    answer_s: float = 60.0
    connect_s: float = 10.0
    read_s: float = 30.0
    #: Bytes per second, at least, measured over `window_s` seconds: 100 MB take 53 minutes at most.
    least: int = 32 << 10
    window_s: float = 30.0


class Downloader:
    """Downloads over HTTPS from public hosts, and from hosts that the operator allows."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        max_bytes: int = 2 << 30,
        limits: DownloadLimits = DownloadLimits(),
        lookup: Callable[[str, int], Addresses] = lookup,
    ) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._client = GuardedClient(allowed, "audio_uri", lookup)
        self.close = self._client.close

    async def save(self, uri: str, path: Path) -> None:
        """Download a URL to a new file.

        Raises:
            RefusedLocation: The URL may not be fetched, or its host refuses.
            RefusedMedia: The content is too large, or is a web page.
            Transient: The host does not deliver now.
            Unavailable: This process cannot open a connection, or the disk has too little space.
            OSError: The file cannot be written.
        """
        url = web_url(uri)
        async with contextlib.AsyncExitStack() as stack:
            with errors_of_host(url):
                async with asyncio.timeout(self._limits.answer_s):
                    answer = await self._answer(url, stack)
            head = await self._save(answer, path)
        if _PAGE.match(head):
            raise RefusedMedia(
                f"audio_uri: {host_of(url)} answers with a web page instead of a recording; does this URL need a login?"
            )

    async def _answer(self, url: URL, stack: contextlib.AsyncExitStack) -> aiohttp.ClientResponse:
        """The answer after all redirects; it stays open as long as the stack."""
        limits = self._limits
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s, sock_read=limits.read_s)
        for _ in range(REDIRECTS + 1):
            answer = await stack.enter_async_context(
                self._client.request("GET", url, headers=_HEADERS, timeout=timeout)
            )
            if answer.status not in _REDIRECTED or "Location" not in answer.headers:
                self._check_answer(answer)
                return answer
            url = web_url(answer.headers["Location"], base=answer.url)
        raise RefusedLocation(f"audio_uri: more than {REDIRECTS} redirects")

    def _check_answer(self, answer: aiohttp.ClientResponse) -> None:
        host = host_of(answer.url)
        if answer.status >= 500 or answer.status in _PASSING:
            after = seconds_of(answer.headers)
            raise Transient(f"audio_uri: {host} answered {answer.status}", retry_after=after)
        if answer.status != 200:
            raise RefusedLocation(f"audio_uri: {host} answered {answer.status}")
        if (answer.content_length or 0) > self._max_bytes:
            raise RefusedMedia(
                f"the recording has {answer.content_length} bytes; at most {self._max_bytes} are accepted"
            )

    async def _save(self, answer: aiohttp.ClientResponse, path: Path) -> bytes:
        """Write the body to the file; returns its first bytes."""
        disk = os.statvfs(path.parent)
        if (answer.content_length or 0) > disk.f_bavail * disk.f_frsize:
            raise Unavailable(f"no room in {path.parent} for a recording of {answer.content_length} bytes")
        head, size = b"", 0
        with path.open("wb") as file:
            async for portion in self._decompressed(answer):
                head, size = head or portion[:1024], size + len(portion)
                if size > self._max_bytes:
                    raise RefusedMedia(f"the recording has more than {self._max_bytes} bytes")
                await asyncio.to_thread(file.write, portion)
        return head

    async def _decompressed(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body in portions, decompressed if it has an encoding. The portions are small at any compression ratio."""
        encoding = answer.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
        if encoding == "identity":
            async for portion in self._portions(answer):
                yield portion
            return
        host = host_of(answer.url)
        if encoding not in _ZIPPED:
            raise RefusedLocation(f"audio_uri: {host} sends Content-Encoding {encoding[:40]!a}, which is not read")
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            async for portion in self._portions(answer):
                while portion and not decompressor.eof:
                    yield await asyncio.to_thread(decompressor.decompress, portion, _PORTION)
                    portion = decompressor.unconsumed_tail
        except zlib.error as exc:
            raise RefusedMedia(f"audio_uri: what {host} sends is not {encoding}, as it says") from exc
        if not decompressor.eof:
            raise Transient(f"audio_uri: {host} does not deliver (it ends in the middle)")

    async def _portions(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it arrives, collected to portions that are large enough for a thread."""
        rate = _Rate(host_of(answer.url), self._limits)
        collected = bytearray()
        with errors_of_host(answer.url):
            while portion := await rate.timed(answer.content.read(_PORTION)):
                collected += portion
                if len(collected) >= _PORTION:
                    yield bytes(collected)
                    collected.clear()
        yield bytes(collected)


class _Rate:
    """The rate at which a host delivers. Only the time spent waiting for the host counts, not that for our own disk."""

    def __init__(self, host: str, limits: DownloadLimits) -> None:
        self._host = host
        self._limits = limits
        self._waited_s, self._size = 0.0, 0

    async def timed(self, read: Awaitable[bytes]) -> bytes:
        """Await a read and return its bytes. Raises `Transient` if too few bytes came during a whole window."""
        clock = asyncio.get_running_loop().time
        began = clock()
        portion = await read
        self._waited_s += clock() - began
        self._size += len(portion)
        if portion and self._waited_s >= self._limits.window_s:
            if self._size < self._limits.least * self._waited_s:
                raise Transient(
                    f"audio_uri: {self._host} delivers too slowly ({self._size} bytes in {self._waited_s:.0f} s; at "
                    f"least {self._limits.least} a second are needed)"
                )
            self._waited_s, self._size = 0.0, 0
        return portion


@contextlib.contextmanager
def errors_of_host(url: URL) -> Iterator[None]:
    """Translates errors of the connection to a host.

    Raises:
        RefusedLocation: aiohttp does not accept the URL.
        Unavailable: This process or machine has no descriptors or memory left.
        Transient: Anything else went wrong.
    """
    try:
        yield
    except aiohttp.InvalidURL as exc:
        raise RefusedLocation("audio_uri: this URL cannot be used") from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno in EXHAUSTED:
            raise Unavailable(f"no connection can be made: {exc.strerror}") from exc
        raise Transient(f"audio_uri: {host_of(url)} does not deliver ({reason_of(exc)})") from exc
