"""Serves an aiohttp application on a socket, with limits on its connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from web.connections.connection import Connection
from web.connections.registry import ConnectionRegistry

if TYPE_CHECKING:
    import socket

    from web.connections.bounds import Bounds

#: Connections that the kernel holds until they are accepted.
_BACKLOG: Final = 1024


class BoundedSite(web.SockSite):
    """aiohttp's site for a listening socket, whose connections keep `bounds`."""

    def __init__(self, runner: web.AppRunner, listening: socket.socket, bounds: Bounds) -> None:
        super().__init__(runner, listening, backlog=_BACKLOG)
        self.connections = ConnectionRegistry(bounds)

    async def start(self) -> None:
        """Accept connections from now on.

        Raises:
            RuntimeError: the runner is not set up.
        """
        await web.BaseSite.start(self)
        loop, server = asyncio.get_running_loop(), self._runner.server
        if server is None:
            raise RuntimeError("set the runner up first")
        self._server = await loop.create_server(
            lambda: Connection(server, self.connections, loop), sock=self._sock, backlog=self._backlog
        )
