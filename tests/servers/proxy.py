"""What goes wrong between two programs that both live: a TCP proxy in the test's event loop that can be told to
misbehave.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self

_PIECE = 1 << 16

#: Seconds between looks at whether a black hole is over.
_LOOK_S = 0.05


@dataclass(eq=False)
class Proxy:
    """Forwards connections to `target`; its switches apply to open connections and to new ones at once.

    Bytes that are held (black hole, delay) when their sender closes the connection are dropped: a request that nobody
    waits for any more is not delivered late, unless `keeps`.
    """

    target: tuple[str, int]
    #: Seconds that every piece is held, each way.
    delay_s: float = 0.0
    #: Nothing goes through, nothing is refused; what is held goes on when this is over.
    blackhole: bool = False
    #: Requests go through, and the connection is cut when the answer comes.
    lose_answers: bool = False
    #: New connections are closed at once.
    refuse: bool = False
    #: What a sender has left behind in a black hole is delivered when that is over, as the buffers of a network do.
    keeps: bool = False
    port: int = 0
    #: Connections taken since the start.
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
        """Reset every open connection; what is under way in it is lost."""
        for connection in list(self._open):
            connection.cancel()

    def heal(self) -> None:
        """Everything goes through again."""
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
        """Copy until one side ends. Reading goes on while pieces are held, so that a sender's end is seen at once."""
        pieces: asyncio.Queue[bytes] = asyncio.Queue()
        await _first(_read(source, pieces), self._write(pieces, sink, answers=answers))
        while self.keeps and self.blackhole and not answers:
            await asyncio.sleep(_LOOK_S)
        if (self.keeps and not answers) or not (self.delay_s or self.blackhole or self.lose_answers):
            while not pieces.empty():
                sink.write(pieces.get_nowait())

    async def _write(self, pieces: asyncio.Queue[bytes], sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while True:
            piece = await pieces.get()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            while self.blackhole:
                await asyncio.sleep(_LOOK_S)
            if answers and self.lose_answers:
                return
            sink.write(piece)
            await sink.drain()


async def _read(source: asyncio.StreamReader, pieces: asyncio.Queue[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(_PIECE):
            pieces.put_nowait(piece)


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
