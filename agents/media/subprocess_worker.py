"""Runs work in a Python subprocess that answers requests over pipes, in lines of JSON.

For work that computes long (recognition) or may crash (decoding uploads). The format is JSON and not pickle, because
unpickling an answer of a process that has decoded hostile bytes could run code. The subprocess has no socket and no
secret of its parent, is confined (`agents.media.sandbox`), ignores Ctrl-C, and ends with its parent.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from agents.media import sandbox
from schemas.errors import ConcordError, NotFound, ProviderError, RefusedMedia, Transient, Unavailable

log = logging.getLogger(__name__)

#: Niceness of subprocesses, so that their computing does not slow the event loop.
NICENESS = 5
#: Seconds between two empty messages of a working subprocess, at least.
BEAT_S = 1.0
#: Bytes of one line: a request, or a message of an answer.
LINE_LIMIT = 1 << 24
#: Bytes of address space of a subprocess: a hostile header must not make it allocate the machine's memory. An idle one
#: that has loaded its decoder takes 0.3 GB of them, most of it libraries, which are shared.
MEMORY = 1 << 30
#: Bytes of a file that a subprocess writes, unless it asks for more. Its stderr is such a file.
FILE_SIZE = 1 << 24

Message = dict[str, Any]

#: Fields of a message of which one ends a request.
_LAST = frozenset({"done", "error", "stopped"})
#: Errors that a subprocess returns to its parent, which raises them. Any other exception ends the subprocess.
_ERRORS: dict[str, type[ConcordError]] = {
    kind.__name__: kind for kind in (NotFound, ProviderError, RefusedMedia, Transient)
}
#: Signals that mean a crash. Other signals (SIGKILL, SIGTERM) come from outside.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
_ROOT = Path(__file__).parents[2]
#: In a subprocess: the abilities that it could not give up.
_kept: list[str] = []
#: Seconds that a subprocess may take to end after it closed its pipe.
_END_S = 10.0
#: The line by which a parent asks for the end of the request before it, which is not answered then.
_STOP = b"[]\n"
_PR_SET_PDEATHSIG = 1


class WorkerDied(Exception):
    """A subprocess ended in the middle of a request. Callers of `Worker.ask` translate it into a `ConcordError`."""

    def __init__(self, message: str, *, crashed: bool) -> None:
        super().__init__(message)
        #: It ended by itself, and not by a signal from outside.
        self.crashed = crashed


@dataclass(frozen=True, slots=True)
class _Child:
    """A running subprocess and its pipes."""

    process: asyncio.subprocess.Process
    requests: asyncio.StreamWriter
    answers: asyncio.StreamReader
    #: Its stderr.
    errors: IO[bytes]

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.returncode is None

    def kill(self) -> None:
        """Send SIGKILL, if the process has not ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                # Not process.kill(): that polls first, and so takes the exit status from asyncio's child watcher.
                os.kill(self.process.pid, signal.SIGKILL)

    async def message(self, seconds: float) -> Message:
        """The next message.

        Raises:
            WorkerDied: The subprocess has ended.
            TimeoutError: There was no message for `seconds`.
        """
        async with asyncio.timeout(seconds):
            line = await self.answers.readline()
        if line.endswith(b"\n"):
            with contextlib.suppress(ValueError):
                message: Message = json.loads(line)
                return message
        code = await self._exit_code()
        raise WorkerDied(self._description(code), crashed=-code in _CRASHES)

    async def _exit_code(self) -> int:
        """The exit code, once the subprocess has closed its pipe or written something that is not JSON."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                return await self.process.wait()
        self.kill()
        return await self.process.wait()

    def _description(self, code: int) -> str:
        """How the subprocess ended, with the last line of its stderr."""
        end = f"its process ended with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                end = f"its process ended by {signal.Signals(-code).name}"
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - 1000))
        lines = self.errors.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{end}: {last}" if last else end

    async def end(self) -> None:
        """Kill the subprocess; return when it has ended and its pipes are closed."""
        self.kill()
        self.requests.close()
        with contextlib.suppress(ConnectionError, ValueError):
            while await self.answers.read(1 << 16):
                pass
        await self.process.wait()
        self.errors.close()


class Worker:
    """A subprocess that runs `python -m module arguments...`, which calls `begin` and `serve`.

    It is started at the first request, and again at the first request after its end.
    """

    def __init__(self, module: str, *arguments: str, start_s: float = 60.0, stop_s: float = 0.0) -> None:
        """`start_s`: seconds within which the subprocess must be ready. `stop_s`: those within which it must leave the
        work of a cancelled call, so that it is kept with what it has loaded, or as many as it took to start, if these
        are more; with 0 it is killed at once.
        """
        self._command = (sys.executable, "-m", module, *arguments)
        self._module = module
        self._start_s, self._stop_s = start_s, stop_s
        #: Seconds that the last subprocess took to start.
        self._started_s = 0.0
        self._child: _Child | None = None
        #: Waits until the subprocess has left the work of a cancelled call.
        self._stopping: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id while the subprocess lives."""
        return self._child.process.pid if self._child is not None and self._child.alive else None

    async def ask(
        self, request: Message, *, stall_s: float, on_message: Callable[[Message], None] = lambda _: None
    ) -> Message:
        """The answer to a request; concurrent calls wait for each other. `on_message` gets messages sent before it.

        Cancelling returns at once; the work ends when it next sends a message, or is killed: see `stop_s`.

        Raises:
            ConcordError: The work raised one of `NotFound`, `ProviderError`, `RefusedMedia`, `Transient`.
            WorkerDied: The subprocess ended before it answered.
            TimeoutError: The subprocess sent no message for `stall_s` seconds and was killed.
            Unavailable: The subprocess cannot be started, or this worker is closed.
        """
        async with self._turn:
            await self._stopped()
            child = None
            try:
                child = await self._alive()
                answer = await self._exchange(child, request, stall_s, on_message)
            except BaseException as exc:
                if isinstance(exc, asyncio.CancelledError) and child is not None and self._stop_s:
                    self._stopping = asyncio.create_task(self._stop(child))
                else:
                    await self._end()
                raise
        if error := answer.get("error"):
            raise _ERRORS[error["kind"]](error["message"])
        result: Message = answer["done"]
        return result

    async def close(self) -> None:
        """End the subprocess, also in the middle of a request. Later requests fail. Safe to call twice."""
        self._closed = True
        if self._child is not None:
            self._child.kill()
        async with self._turn:
            await self._stopped()
            await self._end()

    async def _stop(self, child: _Child) -> None:
        """Ask the subprocess to leave its work, and read what it still sends; kill it if that takes long."""
        try:
            seconds = max(self._stop_s, self._started_s)
            async with asyncio.timeout(seconds):
                child.requests.write(_STOP)
                while not _LAST & (await child.message(seconds)).keys():
                    pass
        except (WorkerDied, TimeoutError, ConnectionError):
            await self._end()

    async def _stopped(self) -> None:
        """Wait for `_stop`, which being cancelled here does not end."""
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
            self._stopping = None

    async def _alive(self) -> _Child:
        """The running subprocess, started if need be."""
        if self._child is None or not self._child.alive:
            await self._end()
            began = time.monotonic()
            self._child = await self._start()
            try:
                ready = await self._child.message(self._start_s)
            except (WorkerDied, TimeoutError) as exc:
                reason = str(exc) or f"not ready after {self._start_s:.0f} s"
                raise Unavailable(f"a process of {self._module} does not start: {reason}") from exc
            self._started_s = time.monotonic() - began
            if kept := ready.get("kept"):
                log.warning("a process of %s is confined only in part: it keeps %s", self._module, ", ".join(kept))
        if self._closed:
            raise Unavailable(f"{self._module} is shut down")
        return self._child

    async def _start(self) -> _Child:
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `_Child.end`)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=_ROOT,
            env=sandbox.environment(),
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C in the terminal must reach the parent only, which then ends the subprocess
        )
        return _Child(
            process, cast("asyncio.StreamWriter", process.stdin), cast("asyncio.StreamReader", process.stdout), errors
        )

    @staticmethod
    async def _exchange(
        child: _Child, request: Message, stall_s: float, on_message: Callable[[Message], None]
    ) -> Message:
        child.requests.write(json.dumps(request).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # the subprocess has just ended; reading from it raises
            await child.requests.drain()
        while True:
            message = await child.message(stall_s)
            if _LAST & message.keys():
                return message
            if message:
                on_message(message)

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await asyncio.shield(child.end())


def begin(memory: int = MEMORY, file_size: int = FILE_SIZE, open_files: int = sandbox.OPEN_FILES) -> None:
    """In the subprocess, before large imports: close inherited file descriptors, raise niceness, set PR_SET_PDEATHSIG,
    and confine it to `memory` bytes of address space, `open_files` open files, and files of `file_size` bytes.

    (asyncio closes all descriptors but the pipes by itself; uvloop leaves inheritable ones open.)
    """
    os.nice(NICENESS)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # The end of the pipe also shows that the parent has ended, but not while a decoder hangs and no Python runs.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _kept.extend(sandbox.confine(memory, file_size, open_files))


class _Stopped(BaseException):
    """The parent does not need the answer any more. No `Exception`, so that no library handles it."""


@dataclass
class _Inbox:
    """The parent's requests. A thread reads them, and ends this process in the middle of work if the parent ends."""

    _lines: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    #: Numbers of the request that was read last, of the one that is worked on, and of the last that is to be left.
    _read: int = 0
    _current: int = 0
    _left: int = 0

    @property
    def is_stopped(self) -> bool:
        """Whether the parent has asked for the end of the current request."""
        return self._left >= self._current

    def requests(self) -> Iterator[Message]:
        """The requests, one after the other, for ever."""
        threading.Thread(target=self._receive, daemon=True).start()
        while True:
            line = self._lines.get()
            self._current += 1
            request: Message = json.loads(line)
            yield request

    def _receive(self) -> None:
        for line in sys.stdin.buffer:
            if line == _STOP:
                self._left = self._read
            else:
                self._read += 1
                self._lines.put(line)
        os._exit(0)


def serve(work: Callable[[Message, Callable[[Message], None]], Message]) -> NoReturn:
    """In the subprocess, after `begin`: answer each request with `work(request, send)` until the parent has ended.

    `send` sends a message before the answer, and does not return if the answer is not needed any more. Empty messages
    only show that the work makes progress; they are sent at most every `BEAT_S`.
    """
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # stdout becomes stderr, so that nothing else is written to the pipe
    inbox = _Inbox()

    def write(message: Message) -> None:
        pipe.write(json.dumps(message).encode() + b"\n")
        pipe.flush()

    last = time.monotonic()

    def send(message: Message) -> None:
        nonlocal last
        if inbox.is_stopped:
            raise _Stopped
        if message or time.monotonic() - last > BEAT_S:
            last = time.monotonic()
            write(message)

    write({"ready": True, "kept": _kept})
    for request in inbox.requests():
        try:
            write({"done": work(request, send)})
        except _Stopped:
            write({"stopped": True})
        except tuple(_ERRORS.values()) as exc:
            kind = next(name for name, error in _ERRORS.items() if isinstance(exc, error))
            write({"error": {"kind": kind, "message": str(exc)}})
        except BaseException:  # noqa: BLE001  (printed to stderr; then this process ends)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # a normal exit would abort: the reading thread holds the lock of stdin
    raise SystemExit
