"""Starts workers by fork from a process that has imported everything: a start costs 0.1 s of CPU instead of three.

A run of faults starts hundreds of workers, on two cores. Each of them runs `agents.__main__.run`, as the command line
does. `python -m tests.system.fork_server` reads one JSON object a line ({"argv", "env", "log", "mutant"}), answers
{"started": pid}, and writes {"ended": pid, "status": n} when a worker has ended (negative: by that signal).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from subprocess import PIPE
from typing import Any, ClassVar, Self

from agents.embedded.process import dies_with_parent

ROOT = Path(__file__).parents[2]


class ForkServer:
    """A client of the forking process, for a test. It is started once, and serves the tests of a session in turn."""

    _process: ClassVar[subprocess.Popen[bytes] | None] = None

    def __init__(self) -> None:
        self._started: asyncio.Queue[int | None] = asyncio.Queue()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        lines = asyncio.StreamReader()
        output = os.fdopen(os.dup(self._running().stdout.fileno()), "rb", 0)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), output
        )
        self._pipe = pipe
        self._reading = asyncio.create_task(self._read(lines))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill the workers that still run, and wait until it is known that they have ended."""
        running = {pid: ended for pid, ended in self._ended.items() if not ended.done()}
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if running:
            await asyncio.wait(running.values(), timeout=10)
        self._pipe.close()
        if self._reading is not None:
            await self._reading

    @classmethod
    def _running(cls) -> subprocess.Popen[bytes]:
        if cls._process is None or cls._process.poll() is not None:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("CONCORD_")}
            environment["OPENBLAS_NUM_THREADS"] = "1"  # numpy starts no thread, which a fork would not have
            cls._process = subprocess.Popen(
                [sys.executable, "-m", "tests.system.fork_server"],
                cwd=ROOT,
                env=environment,
                stdin=PIPE,
                stdout=PIPE,
                preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- see there
            )
            atexit.register(cls._process.communicate)  # it ends when its input does
        return cls._process

    async def spawn(self, argv: list[str], env: dict[str, str], log: Path, mutant: str = "") -> int:
        """Start a worker; its process id."""
        async with self._one_at_a_time:
            request = {"argv": argv, "env": env, "log": str(log), "mutant": mutant}
            os.write(self._running().stdin.fileno(), json.dumps(request).encode() + b"\n")
            pid = await self._started.get()
        if pid is None:
            raise RuntimeError("the fork server has ended; its output is on stderr")
        return pid

    def ended(self, pid: int) -> asyncio.Future[int]:
        """A future of the worker's exit status; minus the signal's number if a signal ended it."""
        return self._ended[pid]

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            event = json.loads(line)
            if "started" in event:
                self._ended[event["started"]] = asyncio.get_running_loop().create_future()
                self._started.put_nowait(event["started"])
            elif event["ended"] in self._ended:
                self._ended[event["ended"]].set_result(event["status"])
        self._started.put_nowait(None)


def main() -> None:
    """Fork a worker for each request on stdin until stdin ends; then kill the workers that still run."""
    _import_everything()
    gc.freeze()  # memory pages that the collector does not write to stay shared
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    children: set[int] = set()
    buffer = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(children)
        if 0 in ready:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                children.add(_fork(json.loads(line)))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _import_everything() -> None:

    # Modules that Faust imports when an app starts, and httpx with its first request.
    import anyio._backends._asyncio  # noqa: F401
    import rocksdict  # noqa: F401
    import uvloop  # noqa: F401

    import agents.commands.serve  # noqa: F401 - `concord worker` imports it: 0.8 s
    import sinks.blobs.local  # noqa: F401 - so that no worker has to
    import tests.system.mutants  # noqa: F401
    from agents.text.reconcile import reconcile
    from schemas.words import Hypothesis, Word

    # The first reconciliation reads frequencies and models of the language: 0.25 s.
    reconcile([Hypothesis(name, (Word(name, 0, 300, 0.9),), "en", 300, 0.9) for name in ("one", "two")])


def _reap(children: set[int]) -> None:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            children.discard(pid)
            _report({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _fork(request: dict[str, Any]) -> int:
    on_parents_death = dies_with_parent(signal.SIGKILL)
    pid = os.fork()
    if pid == 0:
        if on_parents_death is not None:
            on_parents_death()
        _run_worker(request)
    _report({"started": pid})
    return pid


def _run_worker(request: dict[str, Any]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    out = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.clear()
    os.environ.update(request["env"])
    status = 70
    try:
        from tests.system.mutants import run

        status = run(request["mutant"], request["argv"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _report(event: dict[str, int]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    main()
