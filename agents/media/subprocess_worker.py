"""Work that must not happen in an event loop's process: a Python child, asked over a pipe in lines of JSON.

For what computes long (recognition) or may crash (strangers' media). JSON and not pickle, because an answer of a
process that has met hostile bytes must be no more than data. The child holds no socket and no secret of ours, is
confined (`agents.media.sandbox`), ignores Ctrl-C, and dies with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import queue
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from agents.media import sandbox
from schemas.errors import ConcordError, NotFound, ProviderError, RefusedMedia, Transient, Unavailable

log = logging.getLogger(__name__)

#: Scheduling niceness of children: what they compute must not slow the event loop beside them.
NICENESS = 5
#: Seconds between two signs of life of a child at work.
BEAT_S = 1.0
#: Bytes of one line: a request, or a message of an answer.
LINE_LIMIT = 1 << 24
#: Bytes of address space that a child may take: a hostile header must not get the machine's memory. An idle one that
#: has loaded its decoder takes 0.3 GB of them, most of it libraries, which all share.
MEMORY = 1 << 30
#: Bytes that a file which a child writes may have, if it has not asked for more: what it says to stderr is one.
FILE_SIZE = 1 << 24

Message = dict[str, Any]

#: What a child may answer instead of a result. Anything else that goes wrong in it is its death.
_ANSWERS: dict[str, type[ConcordError]] = {
    kind.__name__: kind for kind in (NotFound, ProviderError, RefusedMedia, Transient)
}
#: How a process ends that tripped over its input. Other signals (SIGKILL, SIGTERM) come from outside.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
_ROOT = Path(__file__).parents[2]
#: What this process, if it is a child, could not give up.
_kept: list[str] = []
#: Seconds that a child may take from its last word to its end.
_END_S = 10.0
_PR_SET_PDEATHSIG = 1


class Died(Exception):
    """A child ended in the middle of its work. Whoever asked says what that means; it never leaves their module."""

    def __init__(self, message: str, *, crashed: bool) -> None:
        super().__init__(message)
        #: By its own doing, and not by a signal from outside.
        self.crashed = crashed


@dataclass(frozen=True, slots=True)
class _Child:
    """A running child and its pipes."""

    process: asyncio.subprocess.Process
    orders: asyncio.StreamWriter
    answers: asyncio.StreamReader
    #: What it wrote to stderr.
    errors: IO[bytes]

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                # Not process.kill(): that polls first, and takes the exit status away from asyncio's watcher.
                os.kill(self.process.pid, signal.SIGKILL)

    async def message(self, seconds: float) -> Message:
        """The next message; `Died` if there is none to come, `TimeoutError` if there is none for `seconds`."""
        async with asyncio.timeout(seconds):
            line = await self.answers.readline()
        if line.endswith(b"\n"):
            with contextlib.suppress(ValueError):
                message: Message = json.loads(line)
                return message
        code = await self._ended()
        raise Died(self._obituary(code), crashed=-code in _CRASHES)

    async def _ended(self) -> int:
        """The exit status, after it closed its end of the pipe or wrote nonsense."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                return await self.process.wait()
        self.kill()
        return await self.process.wait()

    def _obituary(self, code: int) -> str:
        """How it ended, with the last line it wrote to stderr."""
        ended = f"its process ended with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                ended = f"its process ended by {signal.Signals(-code).name}"
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - 1000))
        lines = self.errors.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{ended}: {last}" if last else ended

    async def end(self) -> None:
        """Kill it, and wait until it is gone and its pipes are closed."""
        self.kill()
        self.orders.close()
        with contextlib.suppress(ConnectionError, ValueError):
            while await self.answers.read(1 << 16):
                pass
        await self.process.wait()
        self.errors.close()


class Worker:
    """A child process that runs `python -m module arguments...`, which calls `begin` and `serve`. Started when first
    asked, and again after its end.
    """

    def __init__(self, module: str, *arguments: str, start_s: float = 60.0) -> None:
        """`start_s`: seconds that the child may take to say that it is ready."""
        self._command = (sys.executable, "-m", module, *arguments)
        self._module = module
        self._start_s = start_s
        self._child: _Child | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        return self._child.process.pid if self._child is not None and self._child.alive else None

    async def ask(
        self, request: Message, *, stall_s: float, hear: Callable[[Message], None] = lambda _: None
    ) -> Message:
        """The child's answer; requests wait for each other. `hear` gets the messages it sends meanwhile.

        Cancelling kills the child. Raises what the child answered with, `Died`, `TimeoutError` when it sent nothing for
        `stall_s` (and was killed), or `Unavailable` when it cannot be started.
        """
        async with self._turn:
            try:
                answer = await self._converse(await self._alive(), request, stall_s, hear)
            except BaseException:
                await self._end()
                raise
        if error := answer.get("error"):
            raise _ANSWERS[error["kind"]](error["message"])
        result: Message = answer["done"]
        return result

    async def close(self) -> None:
        """End the child, also in the middle of its work; nothing can be asked afterwards. Safe to call twice."""
        self._closed = True
        if self._child is not None:
            self._child.kill()
        async with self._turn:
            await self._end()

    async def _alive(self) -> _Child:
        if self._child is None or not self._child.alive:
            await self._end()
            self._child = await self._started()
            try:
                ready = await self._child.message(self._start_s)
            except (Died, TimeoutError) as exc:
                why = str(exc) or f"not ready after {self._start_s:.0f} s"
                raise Unavailable(f"a process of {self._module} does not start: {why}") from exc
            if kept := ready.get("kept"):
                log.warning("a process of %s is confined in part: it keeps %s", self._module, ", ".join(kept))
        if self._closed:
            raise Unavailable(f"{self._module} is shut down")
        return self._child

    async def _started(self) -> _Child:
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process that writes to it)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=_ROOT,
            env=sandbox.environment(),
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C in the terminal is for us; we end it in order
        )
        return _Child(
            process, cast("asyncio.StreamWriter", process.stdin), cast("asyncio.StreamReader", process.stdout), errors
        )

    @staticmethod
    async def _converse(child: _Child, request: Message, stall_s: float, hear: Callable[[Message], None]) -> Message:
        child.orders.write(json.dumps(request).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # it has just died, and reading says so
            await child.orders.drain()
        while True:
            message = await child.message(stall_s)
            if "done" in message or "error" in message:
                return message
            if message:
                hear(message)

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await asyncio.shield(child.end())


def begin(memory: int = MEMORY, file_size: int = FILE_SIZE) -> None:
    """The child's first act, before it imports anything big: close inherited file descriptors, raise niceness, set
    PR_SET_PDEATHSIG, and confine itself to `memory` bytes of address space and files of `file_size` bytes.

    (asyncio closes everything but the pipes by itself; uvloop leaves open what is marked as inheritable.)
    """
    os.nice(NICENESS)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # The pipe's end tells, too, but only a child that gets to run Python; one that hangs in a decoder does not.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _kept.extend(sandbox.confine(memory, file_size))


def serve(work: Callable[[Message, Callable[[Message], None]], Message]) -> NoReturn:
    """The child's work, after `begin`: answer requests with `work(request, tell)` until the parent is gone.

    `tell` sends a message meanwhile; an empty one is a sign of life, sent at most every `BEAT_S`.
    """
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints to stderr: the wire is for answers

    def send(message: Message) -> None:
        wire.write(json.dumps(message).encode() + b"\n")
        wire.flush()

    last = time.monotonic()

    def tell(message: Message) -> None:
        nonlocal last
        if message or time.monotonic() - last > BEAT_S:
            last = time.monotonic()
            send(message)

    send({"ready": True, "kept": _kept})
    for request in _requests():
        try:
            send({"done": work(request, tell)})
        except tuple(_ANSWERS.values()) as exc:
            kind = next(name for name, known in _ANSWERS.items() if isinstance(exc, known))
            send({"error": {"kind": kind, "message": str(exc)}})
        except BaseException:  # noqa: BLE001  (told on stderr, and the end of this process)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # an orderly exit would stumble over the reading thread, and abort
    raise SystemExit


def _requests() -> Iterator[Message]:
    """Read in a thread of its own, so that the parent's end is noticed in the middle of work."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        request: Message = json.loads(lines.get())
        yield request
