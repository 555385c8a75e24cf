"""`concord up`, `concord worker` and `concord servers`: everything that stays and serves until it is told to stop."""

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

from agents.embedded import address
from agents.embedded.sample_call import sample_call
from agents.fleet import build
from agents.fleet.fleet import Fleet
from agents.fleet.settings import Settings
from agents.media import sandbox
from agents.stages import registry
from schemas.errors import Ambiguous, ServerError, SettingsError, Unavailable
from schemas.jobs.rows import Job

log = logging.getLogger(__name__)

#: A job as people name it: its tenant, if they say it, and its id or reference.
_Named = tuple[str | None, str]

#: Seconds between looks at whether everything still runs.
LOOK_S = 0.5

#: Where clients of Kafka look first: the embedded one listens there unless another program does.
KAFKA_PORT = 9092


def add(commands: Any) -> None:
    """The three commands."""
    up = commands.add_parser("up", help="run the whole fleet in this process", description=UP, formatter_class=_Raw)
    up.add_argument("--once", action="store_true", help="work off what is there, then exit")
    up.add_argument("--job", metavar="JOB", help="run until this job (its id or reference) has ended, then exit")
    up.add_argument("--tenant", metavar="T", help="whose job that is; needed where several have one of that name")
    up.set_defaults(run=run_up)
    worker = commands.add_parser(
        "worker", help="run some stages, any number of copies", description=WORKER, formatter_class=_Raw
    )
    worker.add_argument(
        "stage", nargs="+", metavar="STAGE", help="intake, transcribe.<recognizer>, reconcile, persist, track, relay"
    )
    worker.set_defaults(run=run_worker)
    servers = commands.add_parser("servers", help="run only the embedded Kafka and PostgreSQL", description=SERVERS)
    servers.set_defaults(run=run_servers)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions."""


UP = """Runs every stage, the relay and the HTTP service in one process.

Without KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL it starts a real Apache Kafka and a real PostgreSQL under CONCORD_DATA
first, and stops them at the end; what they hold stays. Ctrl-C finishes or hands back what is in flight."""

WORKER = """Runs the named stages, each as its own consumer group; start as many copies as there are partitions.

  concord worker intake
  concord worker transcribe.whisper-base
  concord worker reconcile persist
  concord worker track            (serves HTTP on CONCORD_HTTP)
  concord worker relay            (several may run; one per shard is active)"""

SERVERS = "Starts the embedded Kafka and PostgreSQL and prints the environment that workers need to use them."


async def run_up(arguments: argparse.Namespace, settings: Settings) -> int:
    """All of it, until a signal comes or the work is done."""
    stop = _on_signals()
    async with servers(settings) as complete:
        await asyncio.to_thread(_prepare_recordings, complete)
        job = (arguments.tenant, arguments.job) if arguments.job else None
        roles = registry.roles(complete.recognizers, complete.enrichments)
        return await _serve(complete, roles, stop, once=arguments.once, job=job, announce=_announce)


def _prepare_recordings(settings: Settings) -> None:
    """Make the default folder for recordings, with one to begin with where the package with the voices is installed."""
    if not settings.audio_roots:
        settings.roots[0].mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(ServerError):
            sample_call(settings.roots[0])


def _announce(fleet: Fleet) -> None:
    """What a person needs to know of a fleet that has just started."""
    settings = fleet.settings
    lines = [
        "",
        f"  Console      {fleet.url}/",
        f"  Kafka        {settings.kafka_servers}   (publish to audio.uploaded, subscribe to persisted and job.failed)",
        f"  Recordings   {', '.join(map(str, settings.roots))}   (files there can be named as file://...)",
        f"  Transcribe   {sys.argv[0]} publish RECORDING --wait   (any file, from another terminal)",
        "  Stop         Ctrl-C; what is in flight goes on at the next start",
        "",
    ]
    print("\n".join(lines), flush=True)


async def run_worker(arguments: argparse.Namespace, settings: Settings) -> int:
    """Some of it, until a signal comes."""
    sandbox.keep_private()
    return await _serve(with_addresses(settings), arguments.stage, _on_signals())


async def run_servers(_: argparse.Namespace, settings: Settings) -> int:
    """The servers alone."""
    stop = _on_signals()
    async with servers(settings) as complete:
        print(
            f"KAFKA_BOOTSTRAP_SERVERS={complete.kafka_servers}\n# DATABASE_URL is in {settings.data / address.FILE}",
            flush=True,
        )
        await stop.wait()
    return 0


def with_addresses(settings: Settings) -> Settings:
    """The settings with the addresses of a running `concord up`, where the environment names no servers."""
    return _filled(settings, address.read(settings.data))


def _filled(settings: Settings, found: dict[str, str]) -> Settings:
    given = settings.model_dump(by_alias=True, exclude_unset=True)
    return Settings.model_validate({k: v for k, v in found.items() if k in _ALIASES} | given)


_ALIASES = {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"}


@contextlib.asynccontextmanager
async def servers(settings: Settings) -> AsyncIterator[Settings]:
    """Start the embedded servers that the settings leave open; the settings with their addresses."""
    found: dict[str, str] = {}
    sandbox.keep_private()
    make_data_folder(settings.data)
    async with contextlib.AsyncExitStack() as stack:
        started = [await stack.enter_async_context(server) for server in _missing(settings)]
        for server in started:
            found |= (
                {"DATABASE_URL": server.dsn}
                if hasattr(server, "dsn")
                else {"KAFKA_BOOTSTRAP_SERVERS": server.bootstrap_servers}
            )
        if found:
            address.write(settings.data, found)
            stack.callback(address.clear, settings.data)
            watch = asyncio.create_task(_keep_alive(started))
            stack.callback(watch.cancel)
        yield _filled(settings, found)


def make_data_folder(data: Path) -> None:
    """CONCORD_DATA, for its owner only; one that is there stays as it is.

    Root's can be passed through, and not listed: below it, PostgreSQL runs as somebody else, in a folder of its own.
    """
    if not data.exists():
        data.mkdir(parents=True)
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _missing(settings: Settings) -> list[Any]:
    servers: list[Any] = []
    if settings.database_url is None:
        from agents.embedded.postgres import EmbeddedPostgres

        servers.append(EmbeddedPostgres(settings.data))
    if settings.kafka_servers is None:
        from agents.embedded.kafka import EmbeddedKafka

        servers.append(EmbeddedKafka(settings.data, preferred_port=KAFKA_PORT, cache=settings.cache))
    return servers


async def _keep_alive(started: Sequence[Any]) -> None:
    """Start a server again that died; the fleet waits for it meanwhile."""
    while True:
        await asyncio.sleep(LOOK_S)
        for server in started:
            if not server.alive:
                log.warning("%s died; starting it again", type(server).__name__)
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
    job: _Named | None = None,
    announce: Callable[[Fleet], None] = lambda _: None,
) -> int:
    """Run the roles. 0 when told to stop or done, 1 when a part hangs."""
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
            log.critical("this worker ends, and should be started again: %s", hung)
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


async def _watch(fleet: Fleet, stop: asyncio.Event, *, once: bool, job: _Named | None) -> None:
    """Return when told to stop, when done, or when a part hangs."""
    while not stop.is_set() and fleet.hung() is None:
        if job is not None and await _ended(fleet, *job):
            return
        if once and await _drained(fleet):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stop.wait()


async def _ended(fleet: Fleet, tenant: str | None, name: str) -> bool:
    """Whether a job has ended, and that is published."""
    job = one_of(name, await fleet.reader.find(tenant, name))
    return job is not None and job.ended and await fleet.database.idle(job.key)


def one_of(name: str, jobs: Sequence[Job]) -> Job | None:
    """The job that a person means by a name; None if there is none. Raises Ambiguous if several tenants have one."""
    if len(jobs) > 1:
        tenants = [job.tenant_id for job in jobs]
        raise Ambiguous(name, tenants, f"--tenant ({', '.join(tenants)})")
    return jobs[0] if jobs else None


async def _drained(fleet: Fleet) -> bool:
    """Nothing is in flight: every topic read to its end, no job open, nothing due."""
    return all(fleet.ready.values()) and await fleet.drained()
