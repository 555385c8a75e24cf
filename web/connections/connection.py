"""One HTTP connection with limits: on the time and bytes of a request's head, and on how long a client may not read."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from web.connections.refusal import Refusal
from web.problems import problem

if TYPE_CHECKING:
    from web.connections.bounds import Bounds
    from web.connections.registry import ConnectionRegistry

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """aiohttp's connection, which closes itself when its client exceeds the bounds."""

    def __init__(self, server: web.Server, registry: ConnectionRegistry, loop: asyncio.AbstractEventLoop) -> None:
        bounds = registry.bounds
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
        self._registry = registry
        self._socket: asyncio.Transport | None = None
        self._head_timeout: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._read_timeout: asyncio.TimerHandle | None = None
        self.client = ""

    @property
    def bounds(self) -> Bounds:
        """The limits that this connection keeps."""
        return self._registry.bounds

    @property
    def is_idle(self) -> bool:
        """Whether it is serving no request and has none queued."""
        return not self._request_in_progress and not self._messages

    def evict(self) -> None:
        """Close it at once."""
        self._registry.remove(self)
        if self._socket is not None:
            self._socket.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to serve requests, or answer 503 if the limit is reached."""
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._socket = cast("asyncio.Transport", transport)
        if self._registry.add(self):
            super().connection_made(transport)
            self._start_head_timeout()
            return
        refusal = Refusal(self._registry)
        self._socket.set_protocol(refusal)
        refusal.connection_made(self._socket)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release what the connection holds."""
        self._registry.remove(self)
        for timeout in (self._head_timeout, self._read_timeout):
            if timeout is not None:
                timeout.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and limit the time and bytes that a request's head takes."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._registry.touch(self)
        if self._is_reading_head():
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head_bytes:
                self._end("the head of its request is too long")
            elif self._head_timeout is None:
                self._start_head_timeout()
        elif self._head_timeout is not None:
            self._head_timeout.cancel()
            self._head_timeout, self._head_bytes = None, 0

    def _is_reading_head(self) -> bool:
        """Whether the head of the next request is still incomplete."""
        return self._waiter is not None and not self._waiter.done()

    def _start_head_timeout(self) -> None:
        self._head_timeout = self._loop.call_later(self.bounds.head_s, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        if self._is_reading_head():
            self._end("it sent no complete request head in time")

    def pause_writing(self) -> None:
        """The client reads more slowly than the worker writes: limit how long it may read nothing."""
        super().pause_writing()
        self._start_read_timeout()

    def _start_read_timeout(self) -> None:
        self._read_timeout = self._loop.call_later(self.bounds.stalled_s, self._on_read_timeout, self._unsent())

    def _on_read_timeout(self, unsent: int) -> None:
        if self._unsent() >= unsent:
            self._end("it does not read its response")
        else:
            self._start_read_timeout()

    def _unsent(self) -> int:
        return self._socket.get_write_buffer_size() if self._socket is not None else 0

    def resume_writing(self) -> None:
        """The client has read what was buffered."""
        super().resume_writing()
        if self._read_timeout is not None:
            self._read_timeout.cancel()

    def _end(self, reason: str) -> None:
        log.info("closed a connection from %s: %s", self.client, reason)
        self.evict()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer bytes that are not HTTP with a problem document; they are the client's fault and logged as info."""
        if status >= 500 or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        log.info("%s sent bytes that are not an HTTP request: %s", self.client, message)
        response = problem(status, "this cannot be read as an HTTP request")
        response.force_close()
        return response
