"""`concord up`, `concord worker` and `concord servers`: the commands that run until they get a signal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from agents.embedded import address, secret_key
from agents.embedded.sample_call import sample_call
from agents.fleet import build
from agents.fleet.fleet import Fleet
from agents.fleet.models.local import check_local
from agents.fleet.settings import Settings
from agents.media import sandbox
from agents.stages import registry
from schemas.accounts.sealing import VARIABLE
from schemas.errors import Ambiguous, ServerError, SettingsError, Unavailable
from schemas.ids import EVERY_TENANT
from schemas.jobs.rows import Job

log = logging.getLogger(__name__)

#: A job in the arguments: its tenant, if given, and its id or reference.
_JobName = tuple[str | None, str]

#: Seconds between two checks whether everything still runs.
LOOK_S = 0.5

#: Kafka's default port: the embedded Kafka listens on it unless another program does.
KAFKA_PORT = 9092


def add(commands: Any) -> None:
    """Add the three commands to the parser."""
    up = commands.add_parser("up", description=UP, formatter_class=_Raw)
    up.add_argument("--once", action="store_true", help="exit when no job is open and nothing is due")
    up.add_argument("--job", metavar="JOB", help="exit when this job (its id or reference) has ended")
    up.add_argument("--tenant", metavar="T", help="the job's tenant; needed where several have a job of that name")
    up.set_defaults(run=run_up)
    worker = commands.add_parser("worker", description=WORKER, formatter_class=_Raw)
    worker.add_argument(
        "stage", nargs="+", metavar="STAGE", help=f"{', '.join(registry.roles(['<recognizer>']))}, enrichments"
    )
    worker.set_defaults(run=run_worker)
    servers = commands.add_parser("servers", description=SERVERS)
    servers.set_defaults(run=run_servers)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions."""


UP = """Runs every stage, the relay and the HTTP service in one process.

Without KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL it first starts a real Apache Kafka and a real PostgreSQL under
CONCORD_DATA, and stops them at the end; their data is kept. On Ctrl-C, events that are being handled are finished, or
handled again at the next start."""

WORKER = """Runs the named stages, each as its own consumer group; start as many copies as there are partitions.

  concord worker intake
  concord worker transcribe.whisper-base
  concord worker reconcile persist
  concord worker enrichments      (all that CONCORD_ENRICHMENTS names)
  concord worker track            (serves HTTP on CONCORD_HTTP)
  concord worker relay            (several may run; one per shard is active)"""

SERVERS = "Starts the embedded Kafka and PostgreSQL and prints the environment that workers need to use them."


async def run_up(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run the servers and all roles, until a signal or the end of the work."""
    stop = _on_signals()
    await asyncio.to_thread(check_local, settings, registry.roles(settings.recognizers, settings.kinds))
    async with servers(settings) as complete:
        await asyncio.to_thread(_prepare_recordings, complete)
        job = (arguments.tenant, arguments.job) if arguments.job else None
        roles = registry.roles(complete.recognizers, complete.kinds)
        return await _serve(complete, roles, stop, once=arguments.once, job=job, announce=_announce)


def _prepare_recordings(settings: Settings) -> None:
    """Create the default folder for recordings, with a sample if the package with the voices is installed."""
    if not settings.audio_roots:
        settings.roots[0].mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(ServerError):
            sample_call(settings.roots[0])


def _announce(fleet: Fleet) -> None:
    """Print how to use the fleet that has just started."""
    settings = fleet.settings
    lines = [
        "",
        f"  Console      {fleet.url}/",
        f"  Kafka        {settings.kafka_servers}   (publish to audio.uploaded, subscribe to persisted and job.failed)",
        f"  Recordings   {', '.join(map(str, settings.roots))}   (files there can be named as file://...)",
        f"  Transcribe   {sys.argv[0]} publish RECORDING --wait   (any file, from another terminal)",
        "  Stop         Ctrl-C; unfinished jobs go on at the next start",
        "",
    ]
    print("\n".join(lines), flush=True)


async def run_worker(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run the named roles until a signal."""
    sandbox.keep_private()
    await asyncio.to_thread(check_local, settings, arguments.stage)
    return await _serve(with_addresses(settings), arguments.stage, _on_signals())


async def run_servers(_: argparse.Namespace, settings: Settings) -> int:
    """Run the embedded servers until a signal."""
    stop = _on_signals()
    async with servers(settings) as complete:
        print(
            f"KAFKA_BOOTSTRAP_SERVERS={complete.kafka_servers}\n# DATABASE_URL is in {settings.data / address.FILE}",
            flush=True,
        )
        await stop.wait()
    return 0


def with_addresses(settings: Settings) -> Settings:
    """The settings, completed by the addresses of a running `concord up` where the environment has none, and by the key
    of its PostgreSQL.
    """
    addresses = address.read(settings.data)
    found = {name: value for name, value in addresses.items() if name in _ADDRESSES}
    given = settings.database_url.get_secret_value() if settings.database_url else None
    # The key is that of this database only: other machines, which share another one, do not have it.
    if given in (None, addresses.get("DATABASE_URL")) and (key := secret_key.read(settings.data)):
        found[VARIABLE] = key
    return _with_defaults(settings, found)


def _with_defaults(settings: Settings, found: dict[str, str]) -> Settings:
    return Settings.model_validate(found | settings.model_dump(by_alias=True, exclude_unset=True))


_ADDRESSES = {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"}


@contextlib.asynccontextmanager
async def servers(settings: Settings) -> AsyncIterator[Settings]:
    """Start an embedded server for each that is not configured; yields the settings with their addresses.

    Raises ServerError when one does not start. Servers that end by themselves are restarted.
    """
    addresses: dict[str, str] = {}
    sandbox.keep_private()
    make_data_folder(settings.data)
    async with contextlib.AsyncExitStack() as stack:
        started = [await stack.enter_async_context(server) for server in _embedded(settings)]
        for server in started:
            addresses |= (
                {"DATABASE_URL": server.dsn}
                if hasattr(server, "dsn")
                else {"KAFKA_BOOTSTRAP_SERVERS": server.bootstrap_servers}
            )
        if addresses:
            address.write(settings.data, addresses)
            stack.callback(address.clear, settings.data)
            task = asyncio.create_task(_restart_ended(started))
            stack.callback(task.cancel)
        key = {VARIABLE: secret_key.ensure(settings.data)} if "DATABASE_URL" in addresses else {}
        yield _with_defaults(settings, addresses | key)


def make_data_folder(data: Path) -> None:
    """Create CONCORD_DATA for its owner only; an existing folder is not changed.

    Root's folder can be entered, but not listed, by others: below it, PostgreSQL runs as another user, in a folder of
    its own. Raises OSError.
    """
    if not data.exists():
        data.mkdir(parents=True)
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _embedded(settings: Settings) -> list[Any]:
    """The embedded servers that stand in for those that are not configured."""
    servers: list[Any] = []
    if settings.database_url is None:
        from agents.embedded.postgres import EmbeddedPostgres

        servers.append(EmbeddedPostgres(settings.data))
    if settings.kafka_servers is None:
        from agents.embedded.kafka import EmbeddedKafka

        servers.append(EmbeddedKafka(settings.data, preferred_port=KAFKA_PORT, cache=settings.cache))
    return servers


async def _restart_ended(started: Sequence[Any]) -> None:
    """Restart servers that have ended by themselves; the fleet waits for them meanwhile."""
    while True:
        await asyncio.sleep(LOOK_S)
        for server in started:
            if not server.alive:
                log.warning("%s has ended; it is started again", type(server).__name__)
                try:
                    await server.start()
                except ServerError as exc:
                    log.warning("%s", exc)


def _on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _serve(
    settings: Settings,
    roles: Sequence[str],
    stop: asyncio.Event,
    *,
    once: bool = False,
    job: _JobName | None = None,
    announce: Callable[[Fleet], None] = lambda _: None,
) -> int:
    """Run the roles; a fleet that fails is started again. The exit status: 1 when a task hangs, else 0.

    Raises SettingsError and Ambiguous.
    """
    wait_s = 1.0
    while not stop.is_set():
        try:
            async with build.running(settings, roles) as fleet:
                log.info("running: %s", ", ".join(roles))
                announce(fleet)
                wait_s = 1.0
                await _watch(fleet, stop, once=once, job=job)
                hung = fleet.hung()
            if hung is None:
                return 0
            log.critical("this worker exits, and has to be restarted: %s", hung)
            return 1
        except (SettingsError, Ambiguous):
            raise
        except (Unavailable, OSError) as exc:
            log.warning("not started: %s", exc)
        except Exception:
            log.exception("the fleet stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await stop.wait()
        wait_s = min(wait_s * 2, 15.0)
    return 0


async def _watch(fleet: Fleet, stop: asyncio.Event, *, once: bool, job: _JobName | None) -> None:
    """Return after a signal, at the end of the work, or when a task hangs."""
    while not stop.is_set() and fleet.hung() is None:
        if job is not None and await _has_ended(fleet, *job):
            return
        if once and await _is_drained(fleet):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stop.wait()


async def _has_ended(fleet: Fleet, tenant: str | None, name: str) -> bool:
    """Whether a job has ended, and its last events are published."""
    job = one_of(name, await fleet.reader.find(tenant or EVERY_TENANT, name))
    return job is not None and job.ended and await fleet.database.idle(job.key)


def one_of(name: str, jobs: Sequence[Job]) -> Job | None:
    """The only one of the jobs that have this name; None if there is none. Raises Ambiguous if there are several."""
    if len(jobs) > 1:
        tenants = [job.tenant_id for job in jobs]
        raise Ambiguous(name, tenants, f"--tenant ({', '.join(tenants)})")
    return jobs[0] if jobs else None


async def _is_drained(fleet: Fleet) -> bool:
    """Whether every topic is read to its end, no job is open, and nothing is due."""
    return all(fleet.ready.values()) and await fleet.drained()
