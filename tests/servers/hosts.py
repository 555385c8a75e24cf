"""HTTP servers on 127.0.0.1 that deliver recordings, refuse to, or send malformed responses."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def listening(app, *, ssl_context=None, shutdown_s=0.1):
    """A server of this application on a free port of 127.0.0.1; its address, as http://."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_s)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await asyncio.wait_for(runner.cleanup(), shutdown_s + 5)


@asynccontextmanager
async def serving(handler, ssl_context=None):
    """An HTTP server on 127.0.0.1; its address, as http://."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with listening(app, ssl_context=ssl_context) as url:
        yield url


def answering(status=200, body=b"audio", **headers):
    async def handler(_):
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handler


@asynccontextmanager
async def raw(*parts: bytes | float):
    """A server that reads a request, then sends the parts, waits for numbers of seconds, and closes the connection."""
    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    writer.write(part)
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
