"""Requests to hosts that tenants name: addresses that are not public are refused where the socket is made."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from agents.media.source.audio_url import AllowedHosts, check_reachable, host_of, is_public
from schemas.errors import RefusedLocation

#: Threads that resolve host names: one for each concurrent request of a worker, because a name server that does not
#: answer occupies its thread for half a minute. Started when needed.
LOOKUPS: Final = 64

#: The result of `socket.getaddrinfo`.
Addresses = list[tuple[int, int, int, str, tuple[Any, ...]]]


def lookup(host: str, port: int) -> Addresses:
    """The host's addresses, from the system's resolver. Blocks; raises OSError."""
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


class ThreadedResolver(AbstractResolver):
    """Resolves host names in threads of its own: asyncio's few threads are needed for files, too, and a name server
    that does not answer would occupy all of them.
    """

    def __init__(self, threads: ThreadPoolExecutor, look_up: Callable[[str, int], Addresses]) -> None:
        self._threads = threads
        self._look_up = look_up

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - aiohttp wants addresses of all families
    ) -> list[ResolveResult]:
        """See `AbstractResolver`. Raises OSError."""
        addresses = await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host, port)
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=family, proto=proto, flags=0)
            for family, _, proto, _, address in addresses
        ]

    async def close(self) -> None:
        """Does nothing: the threads belong to the client."""


class GuardedSockets:
    """Creates the sockets for connections to one host. With `guarded`, it refuses addresses that are not public.

    This check is the last step before a connection and sees the address that is connected to, however it was resolved.
    It also covers literal addresses, which aiohttp does not resolve.
    """

    def __init__(self, *, guarded: bool) -> None:
        self._guarded = guarded
        #: Whether an address was refused.
        self.refused = False

    def make(self, info: Any) -> socket.socket:
        """A socket for a result of `getaddrinfo`.

        Raises:
            OSError: The address is refused; aiohttp then tries the host's other addresses.
        """
        family, kind, proto, _, address = info
        if self._guarded and (not is_public(address[0]) or _is_local(family, address)):
            self.refused = True
            raise PermissionError(errno.EACCES, "not a public address")
        return socket.socket(family, kind, proto)


class GuardedClient:
    """Sends requests, each over a connection of its own, to public hosts and to those that the operator allows. It
    follows no redirects, and keeps no cookies.
    """

    def __init__(self, allowed: AllowedHosts, field: str, look_up: Callable[[str, int], Addresses]) -> None:
        self._allowed = allowed
        self._field = field  # that errors name
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")

    async def close(self) -> None:
        """Release the threads, without waiting for name servers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.asynccontextmanager
    async def request(self, method: str, url: URL, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of one host. `more` is aiohttp's; there is no limit of time but the one in it.

        Raises:
            RefusedLocation: Nothing may be sent to this URL, or the host is not a public one.
            aiohttp.ClientError, TimeoutError, OSError: There is no answer; `reason_of` tells why.
        """
        check_reachable(url, self._allowed, field=self._field)
        sockets = GuardedSockets(guarded=not self._allowed.allow(url))
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._session(sockets))
            try:
                answer = await stack.enter_async_context(session.request(method, url, allow_redirects=False, **more))
            except aiohttp.ClientConnectorError:
                if not sockets.refused:
                    raise
                raise RefusedLocation(
                    f"{self._field}: the host {host_of(url)} is not a public one; an operator may name it in "
                    "CONCORD_ALLOW_HOSTS"
                ) from None
            yield answer

    def _session(self, sockets: GuardedSockets) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=ThreadedResolver(self._threads, self._look_up),
            use_dns_cache=False,
            force_close=True,
            socket_factory=sockets.make,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        )


def _is_local(family: int, address: Any) -> bool:
    """Whether this address belongs to this machine: then it is also the source address. (Nothing is sent.)"""
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(address)
        return bool(probe.getsockname()[0] == address[0])
    return False


def reason_of(exc: Exception) -> str:
    """What went wrong, in words for the owner of the URL."""
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
