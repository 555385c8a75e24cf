"""Shared by the embedded servers: child processes that end with this one, a lock on a data folder, stable ports."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import fcntl
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

#: The default folder for jars and weights, shared by all work trees.
DEFAULT_CACHE = Path("~/.cache/concord")

#: Ports are below the kernel's ephemeral range: so no outgoing connection takes one of them between two starts.
PORT_RANGE = range(20_000, 32_000)

#: Bytes of a log file above which a start renames it (to `.1`).
LOG_LIMIT = 10_000_000

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_parent(death_signal: int) -> Callable[[], None] | None:
    """A function for `Popen(preexec_fn=...)`: it sets PR_SET_PDEATHSIG, by which the kernel sends the child
    `death_signal` when the *thread* that forked it ends.

    So fork from the main thread, or from one that runs as long as the server should. None outside of Linux: there only
    `atexit` ends the child, and after a `kill -9` of this process the next start does.
    """
    if _libc is None:
        return None
    prctl, parent = _libc.prctl, os.getpid()

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended between the fork and this line
            os._exit(1)

    return set_death_signal


class Child:
    """One server process.

    Its id is stored in `pid_file`, so that a later start can end a server that outlived the process that started it.
    """

    def __init__(self, name: str, pid_file: Path, log_file: Path, *, death_signal: int = signal.SIGKILL) -> None:
        self.name = name
        self.log_file = log_file
        self._pid_file = pid_file
        self._death_signal = death_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None and self.alive else None

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        """Run `command`, with its output appended to the log file; as another user when `uid` is given (needs root).

        Raises OSError.
        """
        _rotate(self.log_file)
        with os.fdopen(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                start_new_session=True,  # Ctrl-C in the terminal is for this process, which stops the server in order
                preexec_fn=dies_with_parent(self._death_signal),  # noqa: PLW1509 (calls only prctl, looked up beforehand)
            )
        self._pid_file.write_text(json.dumps({"pid": self._process.pid, "started": _started(self._process.pid)}))
        atexit.register(self.kill)

    def send(self, number: int) -> None:
        """Send a signal, if the process runs."""
        if self._process is not None and self.alive:
            self._process.send_signal(number)

    def kill(self) -> None:
        """`kill -9` the process, and wait until it has ended. Safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._forget()

    async def stop(self, number: int, seconds: float) -> None:
        """Send the signal `number`, and kill the process if it does not end within `seconds`. Safe to call twice."""
        self.send(number)
        if not await until(lambda: not self.alive, seconds):
            log.info("%s did not stop within %g s: killed", self.name, seconds)
        self.kill()

    async def end_leftover(self, seconds: float = 5.0) -> None:
        """Kill the server of an earlier start, if it still runs after `seconds`. Its id and its start time must be
        those in the pid file: the id may belong to another program by now.
        """
        try:
            record = json.loads(self._pid_file.read_text())
            pid, started = int(record["pid"]), record["started"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if started is not None and not await until(lambda: _started(pid) != started, seconds):
            log.warning("ending %s, left running by an earlier process (pid %d)", self.name, pid)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: _started(pid) != started, seconds)
        self._pid_file.unlink(missing_ok=True)

    def fail(self, problem: str, advice: str) -> ServerError:
        """An error to raise, with the problem, the exit status, the advice and the log's last lines."""
        state = "" if self.alive or self._process is None else f" (exit status {self._process.returncode})"
        return ServerError(
            f"{self.name} {problem}{state}. {advice}\nLast lines of {self.log_file}:\n{tail(self.log_file)}"
        )

    def _forget(self) -> None:
        atexit.unregister(self.kill)
        self._pid_file.unlink(missing_ok=True)


class FolderLock:
    """A lock that one process holds on a data folder. The kernel releases it whenever that process ends."""

    #: Record locks do not exclude within one process (nor are they inherited by forked workers, so they are used).
    _ours: set[Path] = set()  # noqa: RUF012

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder.resolve() / "lock"
        self._name = name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises ServerError, which names the process that holds it."""
        if self._descriptor is not None:
            return
        if self._path in self._ours:
            raise self._taken(str(os.getpid()))
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as exc:
            raise ServerError(
                f"{self._path.parent} belongs to another user: run as that one, or choose another data folder "
                "(CONCORD_DATA)."
            ) from exc
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            owner = os.pread(descriptor, 32, 0).decode().strip()
            os.close(descriptor)
            raise self._taken(owner or "(unknown)") from exc
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._ours.add(self._path)
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._ours.discard(self._path)
            self._descriptor = None

    def _taken(self, owner: str) -> ServerError:
        return ServerError(
            f"{self._name} on {self._path.parent} is already run by process {owner}. Stop that process, or choose "
            "another data folder (CONCORD_DATA)."
        )


def keep_ports(
    file: Path, names: Sequence[str], fixed: Mapping[str, int], preferred: Mapping[str, int] | None = None
) -> dict[str, int]:
    """A free loopback port for each name: the one in `fixed`, else the one in `preferred` if it is free, else the one
    of the last start, else a new one.

    They are stored in `file`. Raises ServerError when a fixed port is taken; a port of the last start that is taken is
    replaced, with a warning.
    """
    defaults = _read_ports(file) | {name: port for name, port in (preferred or {}).items() if port_is_free(port)}
    ports: dict[str, int] = {}
    for name in names:
        port = fixed.get(name, defaults.get(name))
        if name in fixed and not port_is_free(fixed[name]):
            raise ServerError(
                f"port {fixed[name]} on 127.0.0.1 is taken by another program: stop it, or choose another port."
            )
        if port is None or not port_is_free(port):
            if port is not None:
                log.warning(
                    "port %d (%s) was taken by another program since the last start: choosing a new one", port, name
                )
            port = _free_port({*ports.values(), *defaults.values(), *fixed.values()})
        ports[name] = port
    file.write_text(json.dumps(ports, indent=2) + "\n")
    return ports


def _read_ports(file: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(file.read_text()).items()}
    except (OSError, ValueError, AttributeError):  # no file yet, or one cut off by a kill: new ports serve as well
        return {}


def port_is_free(port: int) -> bool:
    """Whether a server may listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: old connections in TIME_WAIT do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port(taken: set[int]) -> int:
    for port in random.SystemRandom().sample(PORT_RANGE, 500):
        if port not in taken and port_is_free(port):
            return port
    raise ServerError(f"no free port between {PORT_RANGE.start} and {PORT_RANGE.stop} on 127.0.0.1.")


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition to hold; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def tail(file: Path, lines: int = 20) -> str:
    """The last lines of a log, for an error message."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 8_000))
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _rotate(file: Path) -> None:
    if file.exists() and file.stat().st_size > LOG_LIMIT:
        file.replace(file.with_name(file.name + ".1"))


def _started(pid: int) -> str | None:
    """The start time of a process, in ticks since boot; None when it has ended, or is a zombie, which holds nothing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
