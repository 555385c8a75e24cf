"""HTTP connections, bounded: in all and per client address, in the time and bytes of a request's head, in how long a
client may not read.

aiohttp accepts as many connections as there are; the first thing that then finds no file descriptor is Kafka's client
or a table, and the worker ends (measured: 1,100 idle connections with 1,024 descriptors). Here a newcomer takes the
place of the connection that has been idle longest. Where none is idle it is told to come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from web.problems import RETRY_S, problem

if TYPE_CHECKING:
    import socket

log = logging.getLogger(__name__)

#: Connections that are looked at for an idle one when there is no place left.
_LOOKS: Final = 32

#: Connections that are being told that there is no place, and seconds that each has for its request.
_REFUSED, _REFUSED_S = 64, 2.0

#: Connections that the kernel holds until they are accepted.
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a worker its clients may take."""

    #: Connections in all, and from one address. Behind a proxy all clients have one address.
    connections: int = 4096
    per_client: int = 2048
    #: Seconds and bytes from a request's first byte (or the connection's beginning) to the end of its head.
    head_s: float = 10.0
    head_bytes: int = 32_768
    #: Seconds between requests. Longer than the proxies' own (60 s), or their requests would meet closed connections.
    idle_s: float = 75.0
    #: Seconds in which a client may read nothing of what it is sent.
    stalled_s: float = 30.0

    @classmethod
    def within(cls, connections: int, descriptors: int) -> Bounds:
        """At most so many connections, and half of the descriptors: the rest is for Kafka, PostgreSQL and files."""
        most = max(min(connections, descriptors // 2), 8)
        return cls(connections=most, per_client=max(most // 2, 4))

    @property
    def watchers(self) -> int:
        """Connections that may watch a job; most places stay for those who ask."""
        return self.connections // 2

    @property
    def streams(self) -> int:
        """Connections over which a recording may be sent at once."""
        return self.connections // 4


class Connections:
    """The open connections, by address and longest idle first."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._all: OrderedDict[Connection, None] = OrderedDict()
        self._by_client: dict[str, OrderedDict[Connection, None]] = {}
        self.refusing = 0

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, connection: Connection) -> bool:
        """Whether there is a place for this connection, if need be that of an idle one."""
        own = self._by_client.get(connection.client, OrderedDict())
        if len(own) >= self.bounds.per_client and not _evicted(own):
            return False
        if len(self._all) >= self.bounds.connections and not _evicted(self._all):
            return False
        self._all[connection] = None
        self._by_client.setdefault(connection.client, OrderedDict())[connection] = None
        return True

    def touch(self, connection: Connection) -> None:
        """It has sent a request."""
        if connection in self._all:
            self._all.move_to_end(connection)
            self._by_client[connection.client].move_to_end(connection)

    def leave(self, connection: Connection) -> None:
        """It has ended; no error if it is gone already."""
        if connection in self._all:
            own = self._by_client[connection.client]
            del self._all[connection], own[connection]
            if not own:
                del self._by_client[connection.client]


def _evicted(connections: OrderedDict[Connection, None]) -> bool:
    """End the connection that has been idle longest; False if none was found."""
    for _ in range(min(_LOOKS, len(connections))):
        connection = next(iter(connections))
        if connection.is_idle:
            connection.evict()
            return True
        connections.move_to_end(connection)  # another is looked at first next time
    return False


class Connection(web.RequestHandler):
    """One connection within bounds."""

    def __init__(self, server: web.Server, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        bounds = connections.bounds
        super().__init__(
            server,
            loop=loop,
            access_log=cast("Any", None),
            keepalive_timeout=bounds.idle_s,
            max_headers=64,
            lingering_time=2.0,
            # A kilobyte of gzip would be a megabyte of body.
            auto_decompress=False,
        )
        self._connections = connections
        self._socket: asyncio.Transport | None = None
        self._head: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._stalled: asyncio.TimerHandle | None = None
        self.client = ""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered or waits to be."""
        return not self._request_in_progress and not self._messages

    def evict(self) -> None:
        """End it at once."""
        self._connections.leave(self)
        if self._socket is not None:
            self._socket.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or say that there is no place."""
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._socket = cast("asyncio.Transport", transport)
        if self._connections.enter(self):
            super().connection_made(transport)
            self._await_head()
            return
        refusal = _Refusal(self._connections)
        self._socket.set_protocol(refusal)
        refusal.connection_made(self._socket)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._connections.leave(self)
        for timer in (self._head, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and watch how long a request's head takes."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._connections.touch(self)
        if self._is_in_head():
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head_bytes:
                self._end("it sent too long a head")
            elif self._head is None:
                self._await_head()
        elif self._head is not None:
            self._head.cancel()
            self._head, self._head_bytes = None, 0

    def _is_in_head(self) -> bool:
        """Whether the next request is waited for."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def bounds(self) -> Bounds:
        """What it may take."""
        return self._connections.bounds

    def _await_head(self) -> None:
        self._head = self._loop.call_later(self.bounds.head_s, self._is_late)

    def _is_late(self) -> None:
        if self._is_in_head():
            self._end("no request has come")

    def pause_writing(self) -> None:
        """The client reads more slowly than it is sent."""
        super().pause_writing()
        self._await_reading()

    def _await_reading(self) -> None:
        self._stalled = self._loop.call_later(self.bounds.stalled_s, self._is_stalled, self._unsent())

    def _is_stalled(self, unsent: int) -> None:
        if self._unsent() >= unsent:
            self._end("its answer is not read")
        else:
            self._await_reading()

    def _unsent(self) -> int:
        return self._socket.get_write_buffer_size() if self._socket is not None else 0

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _end(self, why: str) -> None:
        log.info("a connection from %s is ended: %s", self.client, why)
        self.evict()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What cannot be read as HTTP is a problem of its sender's, and no news for the log."""
        if status >= 500 or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        log.info("%s sent what is no HTTP request: %s", self.client, message)
        response = problem(status, "this cannot be read as an HTTP request")
        response.force_close()
        return response


class _Refusal(asyncio.Protocol):
    """Says 503 to a connection for which there is no place, once it has sent its request, and ends it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request: whoever is answered before it has asked sees a broken connection instead."""
        self._transport = cast("asyncio.Transport", transport)
        if self._connections.refusing >= _REFUSED:
            self._transport.abort()
            return
        self._ending = asyncio.get_running_loop().call_later(_REFUSED_S, self._transport.abort)
        self._connections.refusing += 1

    def data_received(self, _: bytes) -> None:
        """Answer whatever it is."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_BUSY)
            self._transport.close()

    def connection_lost(self, _: BaseException | None) -> None:
        """Over."""
        if self._ending is not None:
            self._ending.cancel()
            self._connections.refusing -= 1


def _busy() -> bytes:
    body = problem(503, "this worker has as many connections as it takes; ask again").body
    content = bytes(cast("bytes", body))
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(content)}\r\nRetry-After: {RETRY_S}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


_BUSY: Final = _busy()


class BoundedSite(web.SockSite):
    """Serves an application on a socket, within bounds."""

    def __init__(self, runner: web.AppRunner, listening: socket.socket, bounds: Bounds) -> None:
        super().__init__(runner, listening, backlog=_BACKLOG)
        self.connections = Connections(bounds)

    async def start(self) -> None:
        """Accept connections from now on."""
        await web.BaseSite.start(self)
        loop, server = asyncio.get_running_loop(), self._runner.server
        if server is None:
            raise RuntimeError("set the runner up first")
        self._server = await loop.create_server(
            lambda: Connection(server, self.connections, loop), sock=self._sock, backlog=self._backlog
        )
