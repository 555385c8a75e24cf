"""Fetching a recording from a stranger's host: guarded, bounded, and clear about who was at fault."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from agents.media.source.audio_files import EXHAUSTED
from agents.media.source.audio_url import AllowedHosts, check_port, host_of, is_public, web_url
from schemas.errors import RefusedLocation, RefusedMedia, Transient, Unavailable
from schemas.retry_after import seconds_of

#: Redirects that are followed.
REDIRECTS: Final = 5

#: Threads that resolve names: one for each fetch that a worker may have at once, for a name server that is silent holds
#: its thread for half a minute. Started when needed.
LOOKUPS: Final = 64

_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
#: Answers that pass: the recording is not there yet (producers announce what they are still uploading), or the host is
#: busy. So is every 5xx.
_PASSING: Final = frozenset({202, 404, 408, 423, 425, 429})

#: Encodings that hosts use although none was asked for, and zlib undoes.
_ZIPPED: Final = frozenset({"gzip", "x-gzip", "deflate"})

#: Bytes that are written, or unpacked, in one go.
_PIECE: Final = 1 << 18

#: What a page begins with that is sent in place of a recording, to who has not logged in.
_PAGE: Final = re.compile(rb"\s*(<!--.{,200}?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Patience:
    """What a host is given. Whoever is slower holds a place that others wait for."""

    #: Seconds until the answer's headers are there, with all redirects; for making one connection; for one read.
    answer_s: float = 60.0
    connect_s: float = 10.0
    read_s: float = 30.0
    #: Bytes a second, over every so many seconds: 100 MB take 53 minutes at most.
    least: int = 32 << 10
    window_s: float = 30.0


#: What `socket.getaddrinfo` gives.
Addresses = list[tuple[int, int, int, str, tuple[Any, ...]]]


def lookup(host: str, port: int) -> Addresses:
    """The host's addresses, from the system."""
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


class _Resolver(AbstractResolver):
    """Resolves in threads of our own: asyncio's few are for files, too, and a silent name server would take them."""

    def __init__(self, threads: ThreadPoolExecutor, look_up: Callable[[str, int], Addresses]) -> None:
        self._threads = threads
        self._look_up = look_up

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - aiohttp asks for all there are
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host, port)
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=family, proto=proto, flags=0)
            for family, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """The threads are the downloader's."""


class Downloader:
    """Fetches over HTTPS from public hosts, and from those that an operator allows."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        max_bytes: int = 2 << 30,
        patience: Patience = Patience(),
        lookup: Callable[[str, int], Addresses] = lookup,
    ) -> None:
        self._allowed = allowed
        self._patience = patience
        self._max_bytes = max_bytes
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")

    async def close(self) -> None:
        """Release the threads, without waiting for a name server."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def save(self, uri: str, path: Path) -> None:
        """Write what the URL answers with to a new file.

        Raises `RefusedLocation`, `RefusedMedia` if it is too large or a web page, `Transient` when the host does not
        deliver, `Unavailable` when this process can open no connection, or OSError when the file cannot be written.
        """
        url = web_url(uri)
        async with contextlib.AsyncExitStack() as stack:
            with delivering(url):
                async with asyncio.timeout(self._patience.answer_s):
                    answer = await self._answer(url, stack)
            head = await self._save(answer, path)
        if _PAGE.match(head):
            raise RefusedMedia(
                f"audio_uri: {host_of(url)} answers with a web page instead of a recording; does this URL need a login?"
            )

    async def _answer(self, url: URL, stack: contextlib.AsyncExitStack) -> aiohttp.ClientResponse:
        """The answer at the end of all redirects, which is there for as long as the stack is."""
        for _ in range(REDIRECTS + 1):
            answer = await self._asked(url, stack)
            if answer.status not in _REDIRECTED or "Location" not in answer.headers:
                self._check_answer(answer)
                return answer
            url = web_url(answer.headers["Location"], base=answer.url)
        raise RefusedLocation(f"audio_uri: more than {REDIRECTS} redirects")

    async def _asked(self, url: URL, stack: contextlib.AsyncExitStack) -> aiohttp.ClientResponse:
        """One host's answer, over a connection that is used for nothing else."""
        allowed = self._allowed.allow(url)
        if not allowed:
            if url.scheme != "https":
                raise RefusedLocation("audio_uri: only https:// is fetched from other hosts")
            check_port(url)
        sockets = _Sockets(guarded=not allowed)
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self._threads, self._lookup),
            use_dns_cache=False,
            force_close=True,
            socket_factory=sockets.make,
        )
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._patience.connect_s, sock_read=self._patience.read_s
                ),
                auto_decompress=False,
                trust_env=False,
            )
        )
        headers = {"Accept-Encoding": "identity", "User-Agent": "Concord"}
        try:
            return await stack.enter_async_context(session.get(url, allow_redirects=False, headers=headers))
        except aiohttp.ClientConnectorError:
            if not sockets.refused:
                raise
            raise RefusedLocation(
                f"audio_uri: the host {host_of(url)} is not a public one; an operator may name it in "
                "CONCORD_ALLOW_HOSTS"
            ) from None

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
        """Write the answer's body to the file; its first bytes."""
        disk = os.statvfs(path.parent)
        if (answer.content_length or 0) > disk.f_bavail * disk.f_frsize:
            raise Unavailable(f"no room in {path.parent} for a recording of {answer.content_length} bytes")
        head, size = b"", 0
        with path.open("wb") as file:
            async for piece in self._unpacked(answer):
                head, size = head or piece[:1024], size + len(piece)
                if size > self._max_bytes:
                    raise RefusedMedia(f"the recording has more than {self._max_bytes} bytes")
                await asyncio.to_thread(file.write, piece)
        return head

    async def _unpacked(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body in pieces, without an encoding that was not asked for. No piece is large, whatever it was packed
        into.
        """
        encoding = answer.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
        if encoding == "identity":
            async for piece in self._pieces(answer):
                yield piece
            return
        host = host_of(answer.url)
        if encoding not in _ZIPPED:
            raise RefusedLocation(f"audio_uri: {host} sends Content-Encoding {encoding[:40]!a}, which is not read")
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            async for piece in self._pieces(answer):
                while piece and not unpacker.eof:
                    yield await asyncio.to_thread(unpacker.decompress, piece, _PIECE)
                    piece = unpacker.unconsumed_tail
        except zlib.error as exc:
            raise RefusedMedia(f"audio_uri: what {host} sends is not {encoding}, as it says") from exc
        if not unpacker.eof:
            raise Transient(f"audio_uri: {host} does not deliver (it ends in the middle)")

    async def _pieces(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it comes, gathered to pieces worth a thread's while."""
        rate = _Rate(host_of(answer.url), self._patience)
        gathered = bytearray()
        with delivering(answer.url):
            while piece := await rate.timed(answer.content.read(_PIECE)):
                gathered += piece
                if len(gathered) >= _PIECE:
                    yield bytes(gathered)
                    gathered.clear()
        yield bytes(gathered)


class _Rate:
    """How fast a host delivers, by the time that is spent waiting for it, and not for our own disk."""

    def __init__(self, host: str, patience: Patience) -> None:
        self._host = host
        self._patience = patience
        self._waited_s, self._size = 0.0, 0

    async def timed(self, read: Awaitable[bytes]) -> bytes:
        """What is read; `Transient` when a whole window has brought too little."""
        clock = asyncio.get_running_loop().time
        began = clock()
        piece = await read
        self._waited_s += clock() - began
        self._size += len(piece)
        if piece and self._waited_s >= self._patience.window_s:
            if self._size < self._patience.least * self._waited_s:
                raise Transient(
                    f"audio_uri: {self._host} delivers too slowly ({self._size} bytes in {self._waited_s:.0f} s; at "
                    f"least {self._patience.least} a second are needed)"
                )
            self._waited_s, self._size = 0.0, 0
        return piece


class _Sockets:
    """Makes the sockets for connections to one host, and none to an address that is not public, if it is guarded.

    That is the last moment before a connection, with the very address that it is made to: whoever resolved it, and also
    a literal address, which aiohttp resolves nowhere.
    """

    def __init__(self, *, guarded: bool) -> None:
        self._guarded = guarded
        #: Whether an address was refused.
        self.refused = False

    def make(self, info: Any) -> socket.socket:
        """A socket for what `getaddrinfo` gave; an OSError, so that the host's other addresses are tried."""
        family, kind, proto, _, address = info
        if self._guarded and (not is_public(address[0]) or _is_ours(family, address)):
            self.refused = True
            raise PermissionError(errno.EACCES, "not a public address")
        return socket.socket(family, kind, proto)


def _is_ours(family: int, address: Any) -> bool:
    """Whether this is an address of this machine itself: then it would be who sends to it. (Nothing is sent.)"""
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(address)
        return bool(probe.getsockname()[0] == address[0])
    return False


@contextlib.contextmanager
def delivering(url: URL) -> Iterator[None]:
    """Whatever goes wrong between us and the host is `Transient`, unless it is this process that can do no more."""
    try:
        yield
    except aiohttp.InvalidURL as exc:
        raise RefusedLocation("audio_uri: this URL cannot be fetched") from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno in EXHAUSTED:
            raise Unavailable(f"no connection can be made: {exc.strerror}") from exc
        raise Transient(f"audio_uri: {host_of(url)} does not deliver ({_reason(exc)})") from exc


def _reason(exc: Exception) -> str:
    """What went wrong, for who published the URL."""
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            error = exc.certificate_error
            return f"its certificate is not accepted: {getattr(error, 'verify_message', '') or type(error).__name__}"
        case aiohttp.ClientSSLError():
            return "no TLS connection can be made to it"
        case TimeoutError():
            return "it does not answer in time"
        case aiohttp.ClientConnectorError():
            return os.strerror(exc.errno).lower() if exc.errno and exc.errno > 0 else "no connection can be made to it"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | ConnectionError():
            return "the connection ended before everything was there"
        case _:
            return f"no proper answer: {type(exc).__name__}"
