"""The protocol of a connection that exceeds the limit: it answers the first request with 503 and closes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from web.problems import RETRY_S, problem

if TYPE_CHECKING:
    from web.connections.registry import ConnectionRegistry

#: Connections that are refused with an answer at the same time, and seconds that each has to send its request.
_REFUSED, _REFUSED_S = 64, 2.0


class Refusal(asyncio.Protocol):
    """Answers 503 once the client has sent its request, and closes the connection."""

    def __init__(self, registry: ConnectionRegistry) -> None:
        self._registry = registry
        self._transport: asyncio.Transport | None = None
        self._timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request: a client that is answered before it has sent one reports a broken connection."""
        self._transport = cast("asyncio.Transport", transport)
        if self._registry.refusing >= _REFUSED:
            self._transport.abort()
            return
        self._timeout = asyncio.get_running_loop().call_later(_REFUSED_S, self._transport.abort)
        self._registry.refusing += 1

    def data_received(self, _: bytes) -> None:
        """Answer, whatever the request is."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_SERVICE_UNAVAILABLE)
            self._transport.close()

    def connection_lost(self, _: BaseException | None) -> None:
        """Release what the refusal holds."""
        if self._timeout is not None:
            self._timeout.cancel()
            self._registry.refusing -= 1


def _service_unavailable() -> bytes:
    body = problem(503, "this worker has as many connections as it takes; ask again").body
    content = bytes(cast("bytes", body))
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(content)}\r\nRetry-After: {RETRY_S}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


_SERVICE_UNAVAILABLE: Final = _service_unavailable()
