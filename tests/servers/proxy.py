"""A TCP proxy in the test's event loop that simulates network failures: delays, lost responses, black holes, resets."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self

_CHUNK_BYTES = 1 << 16

#: Seconds between checks whether a black hole is over.
_LOOK_S = 0.05


@dataclass(eq=False)
class Proxy:
    """Forwards connections to `target`. Its switches apply to open and to new connections immediately.

    Bytes that are held (black hole, delay) when their sender closes the connection are dropped, so that an abandoned
    request is not delivered late, unless `keeps` is set.
    """

    target: tuple[str, int]
    #: Delay of every chunk in seconds, in each direction.
    delay_s: float = 0.0
    #: Bytes are held, and connections are not refused; the bytes continue when this is over.
    blackhole: bool = False
    #: Requests are forwarded, and the connection is reset when the response comes.
    lose_answers: bool = False
    #: New connections are closed at once.
    refuse: bool = False
    #: Bytes of a sender that has closed its connection are delivered after the black hole, as network buffers do.
    keeps: bool = False
    port: int = 0
    #: Number of connections since the start.
    connections: int = 0
    _server: asyncio.Server | None = field(default=None, repr=False)
    _open: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._open, return_exceptions=True)

    def cut(self) -> None:
        """Reset every open connection; bytes in transit are lost."""
        for connection in list(self._open):
            connection.cancel()

    def heal(self) -> None:
        """Switch off all failures."""
        self.delay_s, self.blackhole, self.lose_answers, self.refuse = 0.0, False, False, False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            if not self.refuse:
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            self._open.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self.target)
        try:
            await _first(self._pump(reader, requests, answers=False), self._pump(answers, writer, answers=True))
        except BaseException:
            requests.transport.abort()
            raise
        finally:
            requests.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        """Copy until one side ends. Reading continues while chunks are held, to notice at once when a sender ends."""
        chunks: asyncio.Queue[bytes] = asyncio.Queue()
        await _first(_read(source, chunks), self._write(chunks, sink, answers=answers))
        while self.keeps and self.blackhole and not answers:
            await asyncio.sleep(_LOOK_S)
        if (self.keeps and not answers) or not (self.delay_s or self.blackhole or self.lose_answers):
            while not chunks.empty():
                sink.write(chunks.get_nowait())

    async def _write(self, chunks: asyncio.Queue[bytes], sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while True:
            chunk = await chunks.get()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            while self.blackhole:
                await asyncio.sleep(_LOOK_S)
            if answers and self.lose_answers:
                return
            sink.write(chunk)
            await sink.drain()


async def _read(source: asyncio.StreamReader, chunks: asyncio.Queue[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await source.read(_CHUNK_BYTES):
            chunks.put_nowait(chunk)


async def _first(*coroutines: object) -> None:
    """Run all until the first ends; the others are cancelled. Raises what the first raised."""
    tasks = [asyncio.ensure_future(c) for c in coroutines]  # type: ignore[call-overload]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
