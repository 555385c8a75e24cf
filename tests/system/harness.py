"""Starts a fleet of real processes on real servers, which tests can kill, and the observers that record its events."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from agents.embedded.kafka import EmbeddedKafka
from agents.embedded.postgres import EmbeddedPostgres
from agents.embedded.process import Child, keep_ports, tail
from agents.fleet.settings import Settings
from agents.stages import registry
from tests.servers.gcs import BUCKET
from tests.servers.proxy import Proxy
from tests.system import templates
from tests.system.checker import Verdict, inputs, verdict_on
from tests.system.fork_server import ROOT, ForkServer
from tests.system.observers import (
    OUTAGES,
    TENANT,
    Downstream,
    OffsetSampler,
    Publisher,
    StatusObserver,
    StatusPoller,
    TopicRecorder,
    with_retries,
)

RECOGNIZERS = ("scripted-a", "scripted-b")
#: A recognizer whose list of requests has markers, and one whose list has only the URL of the audio.
MIXED = ("scripted-a", "assemblyai")
#: Recognizers with the vendors' own protocols, as in a fleet with API keys.
CLOUD = ("assemblyai", "google")

#: Seconds in which a request may still arrive at the test servers; `agents/asr` assumes more for those of vendors.
SETTLES_S = 5.0


def roles_with(recognizers: tuple[str, ...]) -> tuple[str, ...]:
    """Every role of a fleet with these recognizers that makes what is made by default."""
    return registry.roles(recognizers, Settings.model_fields["enrichments"].default)


ROLES = roles_with(RECOGNIZERS)

_numbers = itertools.count(1)


async def until(condition: Callable[[], Any], seconds: float, *, every_s: float = 0.05) -> bool:
    """Wait for a condition; False when it does not hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(every_s)
    return True


class Site:
    """Kafka, PostgreSQL, the recognizers' servers and a folder for files; each server can be killed and restarted."""

    def __init__(
        self,
        folder: Path,
        fork_server: ForkServer,
        *,
        nodes: int = 1,
        advertised: list[int] | None = None,
        recognizers: tuple[str, ...] = RECOGNIZERS,
    ) -> None:
        self.folder = folder
        self.recognizers = recognizers
        self.fork_server = fork_server
        self.kafka = EmbeddedKafka(folder, nodes=nodes, heap_mb=300, advertised_port=advertised)
        self.postgres = EmbeddedPostgres(folder)
        self.provider = Provider(folder / "provider")
        self.assemblyai = Provider(folder / "assemblyai", "assemblyai")
        self.google = Provider(folder / "google", "google_speech")
        #: Job ids by the text that Google recognizes in their recordings; tests that make recordings fill it.
        self.sounds: dict[str, str] = {}
        #: TCP proxies before PostgreSQL and the recognizers' server, which the workers use, and before Kafka's nodes,
        #: which the test uses, too.
        self.proxies: dict[str, Proxy] = {}
        self.workers: dict[str, Worker] = {}
        #: Environment variables of all workers, besides those of `environment`.
        self.common: dict[str, str] = {}

    @property
    def audio(self) -> Path:
        """The folder from which recordings may be read."""
        return self.folder / "audio"

    def environment(self, name: str) -> dict[str, str]:
        """The environment variables of the worker with this name."""
        dsn, provider = self.postgres.dsn, self.provider.port
        if "postgres" in self.proxies:
            dsn = dsn.replace(f":{self.postgres.port}/", f":{self.proxies['postgres'].port}/")
        if "provider" in self.proxies:
            provider = self.proxies["provider"].port
        kept = {k: os.environ[k] for k in ("PATH", "HOME", "PYTHONPATH", "LANG", "SSL_CERT_FILE") if k in os.environ}
        return kept | {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "DATABASE_URL": dsn,
            "SCRIPTED_BASE_URL": f"http://127.0.0.1:{provider}",
            "ASSEMBLYAI_BASE_URL": f"http://127.0.0.1:{self.assemblyai.port}",
            "ASSEMBLYAI_API_KEY": "any",
            "GOOGLE_SPEECH_ENDPOINT": f"http://127.0.0.1:{self.google.grpc}",
            "GOOGLE_CLOUD_PROJECT": "our-project",
            "GRPC_VERBOSITY": "ERROR",
            "CONCORD_SECRET_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
            "CONCORD_RECOGNIZERS": ",".join(self.recognizers),
            "CONCORD_SETTLES": ",".join(f"{name}={SETTLES_S:g}" for name in self.recognizers),
            "CONCORD_DATA": str(self.folder / "workers" / name),
            "CONCORD_HTTP": f"127.0.0.1:{self._port(name)}",
            "CONCORD_AUDIO_ROOTS": str(self.audio),
            "CONCORD_ALLOW_HOSTS": "127.0.0.1",
            "STORAGE_ROOT": str(self.folder / "storage"),
            "PYTHONUNBUFFERED": "1",
            **self.common,
        }

    def _port(self, name: str) -> int:
        """A port that is the same at every start: a `track` worker is recognized by it."""
        folder = self.folder / "workers" / name
        folder.mkdir(exist_ok=True)
        return keep_ports(folder / "ports.json", ["http"], {})["http"]

    def worker(self, *roles: str, name: str = "", mutant: str = "", **env: str) -> Worker:
        """A new worker, not started; `env` has variables in lower case, as in `concord_instance="w1"`."""
        name = name or f"{'-'.join(roles) if len(roles) < 3 else 'all'}-{next(_numbers)}"
        more = {key.upper(): value for key, value in env.items()}
        worker = Worker(self, name, ["worker", *roles], self.environment(name) | more, mutant)
        self.workers[name] = worker
        return worker

    async def __aenter__(self) -> Site:
        (self.folder / "workers").mkdir(parents=True)
        await asyncio.gather(self._start_kafka(), self._start_postgres(), *(p.start() for p in self._providers()))
        return self

    async def _start_kafka(self) -> None:
        alone = len(self.kafka._nodes) == 1
        if alone:
            templates.lay_kafka(self.folder)
        await self.kafka.start()
        if alone:
            templates.keep_kafka(self.folder)

    async def _start_postgres(self) -> None:
        await templates.lay_postgres(self.folder)
        await self.postgres.start()

    @property
    def servers(self) -> list[Child]:
        """The processes of Kafka and PostgreSQL."""
        return [*(node.child for node in self.kafka._nodes), self.postgres._child]

    def _providers(self) -> list[Provider]:
        vendors = {"assemblyai": self.assemblyai, "google": self.google}
        used = [vendors.get(name, self.provider) for name in self.recognizers]
        return list(dict.fromkeys(used))

    async def charges(self) -> Counter[str]:
        """How often each marker was charged. AssemblyAI's ledger has URLs, whose markers PostgreSQL has; Google's has
        the recognized text, one chunk for each recording, whose job is in `sounds`.
        """
        charged = self.provider.charges("marker")
        urls = self.assemblyai.charges("audio_url")
        if urls:
            connection = await asyncpg.connect(self.postgres.dsn)
            kept = await connection.fetch("SELECT audio_url, marker FROM provider_requests WHERE audio_url IS NOT NULL")
            await connection.close()
            markers = {row["audio_url"]: row["marker"] for row in kept}
            for url, count in urls.items():
                charged[markers.get(url, f"unknown {url}")] += count
        for text, count in self.google.charges("heard").items():
            job = self.sounds.get(text)
            charged[f"concord-{TENANT}~{job}~1~google" if job else f"unknown {text}"] += count
        return charged

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.signal(signal.SIGKILL)
        self.kafka.kill()
        self.postgres.kill()
        for provider in self._providers():
            provider.kill()


@contextlib.asynccontextmanager
async def site(
    *, nodes: int = 1, proxies: bool = False, recognizers: tuple[str, ...] = RECOGNIZERS, storage: str = ""
) -> AsyncIterator[Site]:
    """A new site in a folder that is deleted afterwards. When the test fails, the ends of all logs are printed.

    `storage` is the endpoint of the bucket from which Google reads whole recordings; without it, Google gets chunks.
    """
    folder = Path(tempfile.mkdtemp(prefix="concord-test-"))
    folder.chmod(0o755)  # as root, PostgreSQL's user must get through
    try:
        async with contextlib.AsyncExitStack() as stack:
            fork_server = await stack.enter_async_context(ForkServer())
            names = ["postgres", "provider", *(f"kafka-{n + 1}" for n in range(nodes))] if proxies else []
            between = {name: await stack.enter_async_context(Proxy(("127.0.0.1", 0))) for name in names}
            advertised = [between[name].port for name in names if name.startswith("kafka")]
            here = Site(folder, fork_server, nodes=nodes, advertised=advertised or None, recognizers=recognizers)
            if storage:
                here.google.options["--storage"] = storage
                here.common |= {"GOOGLE_CLOUD_BUCKET": BUCKET, "STORAGE_EMULATOR_HOST": storage}
            if proxies:
                here.kafka.reserve()
                here.proxies = between
                _aim(here, "kafka-", here.kafka.ports)
            await stack.enter_async_context(here)
            if proxies:
                _aim(here, "postgres", [here.postgres.port])
                _aim(here, "provider", [here.provider.port])
            try:
                yield here
            except BaseException:
                logs = {f"{worker.name} ({worker.state})": worker.log for worker in here.workers.values()}
                logs |= {child.name: child.log_file for child in here.servers}
                for name, log in logs.items():
                    print(f"\n=== {name}, {log}\n{tail(log, 25)}", file=sys.stderr)
                raise
    finally:
        if not os.environ.get("CONCORD_KEEP_TESTS"):
            shutil.rmtree(folder, ignore_errors=True)


def _aim(here: Site, name: str, ports: list[int]) -> None:
    for proxy, port in zip([p for n, p in here.proxies.items() if n.startswith(name)], ports, strict=True):
        proxy.target = ("127.0.0.1", port)


async def concord(here: Site, *words: str) -> str:
    """Run a command as an operator; returns its output. It must exit with 0."""
    command = (sys.executable, "-m", "agents", *words)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=here.environment("operator"), stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, f"{' '.join(words)}: {output.decode()}"
    return output.decode()


class Worker:
    """One process of the fleet, started by fork or by the command line; can be started again after it has ended."""

    def __init__(self, here: Site, name: str, argv: list[str], env: dict[str, str], mutant: str = "") -> None:
        self.name = name
        self.env = env
        self.argv = argv
        #: The work tree that `start_plain` runs.
        self.tree = ROOT
        self.log = here.folder / "workers" / f"{name}.log"
        self.url = f"http://{env['CONCORD_HTTP']}"
        self._nursery = here.fork_server
        self._mutant = mutant
        self._pid: int | None = None
        self._ended: asyncio.Future[int] | None = None

    @property
    def state(self) -> str:
        """A description for error messages."""
        if self._ended is None:
            return "never started"
        return f"ended with {self._ended.result()}" if self._ended.done() else f"running as {self._pid}"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._pid is not None, f"{self.name} was never started"
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether its process runs (or is stopped)."""
        return self._ended is not None and not self._ended.done()

    async def start(self, **env: str) -> Worker:
        """Start the process, with additional environment variables for this start."""
        assert not self.alive, f"{self.name} runs already"
        more = {key.upper(): value for key, value in env.items()}
        self._pid = await self._nursery.spawn(self.argv, self.env | more, self.log, self._mutant)
        self._ended = self._nursery.ended(self._pid)
        return self

    async def start_plain(self, **env: str) -> Worker:
        """Start the process with `python -m agents`, as an operator does."""
        more = {key.upper(): value for key, value in env.items()}
        with self.log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agents", *self.argv,
                cwd=self.tree, env=self.env | more, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self._pid = process.pid
        self._ended = asyncio.ensure_future(process.wait())
        return self

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.alive and self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    async def kill(self) -> None:
        """`kill -9`."""
        self.signal(signal.SIGKILL)
        await self.ended(10)

    async def ended(self, seconds: float) -> int:
        """Wait for its exit status; minus the signal's number if a signal ended it.

        Raises:
            AssertionError: it has not ended within `seconds`.
        """
        assert self._ended is not None
        try:
            return await asyncio.wait_for(asyncio.shield(self._ended), seconds)
        except TimeoutError:
            raise AssertionError(f"{self.name} has not ended within {seconds} s:\n{tail(self.log, 60)}") from None

    async def ready(self, seconds: float = 60) -> Worker:
        """Wait until the log of this start reports that it runs.

        Raises:
            AssertionError: it ends before, or does not run within `seconds`.
        """
        before = self.log_count("running: ")
        if not await until(lambda: self.log_count("running: ") > before or not self.alive, seconds) or not self.alive:
            raise AssertionError(f"{self.name} does not run ({self.state}):\n{tail(self.log, 60)}")
        return self

    def log_count(self, text: str) -> int:
        """How often its log contains a text, over all its starts."""
        return self.log.read_text(errors="replace").count(text) if self.log.exists() else 0


class Provider:
    """A server of `tests/servers` as a process, with an append-only ledger of its charges."""

    def __init__(self, folder: Path, server: str = "scripted") -> None:
        folder.mkdir(parents=True)
        #: Additional command-line options.
        self.options: dict[str, str] = {}
        ports = keep_ports(folder / "ports.json", ["http", "grpc"], {})
        #: HTTP port of its switches, and of its service unless that is gRPC.
        self.port = ports["http"]
        self.grpc = ports["grpc"]
        self.ledger = folder / "ledger.jsonl"
        self._server = server
        self._child = Child(f"the {server} server", folder / "pid.json", folder / "server.log")
        self._folder = folder

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        ports: dict[str, object] = {"--port": self.port}
        if self._server == "google_speech":
            ports = {"--port": self.grpc, "--control": self.port}
        options = [str(part) for option in (ports | self.options).items() for part in option]
        command = [sys.executable, "-m", f"tests.servers.{self._server}", *options, "--ledger", str(self.ledger)]
        env = {k: v for k, v in os.environ.items() if not k.startswith("CONCORD_")}
        self._child.spawn(command, env=env | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}, cwd=ROOT)
        await with_retries(self.switch)

    def kill(self) -> None:
        """`kill -9`."""
        self._child.kill()

    async def switch(self, **switches: Any) -> None:
        """Replace all switches of its misbehaviour; without arguments, it behaves normally."""
        async with aiohttp.ClientSession() as session:
            try:
                async with session.put(f"http://127.0.0.1:{self.port}/switches", json=switches) as answer:
                    answer.raise_for_status()
            except aiohttp.ClientError as exc:
                raise ConnectionError(str(exc)) from exc

    async def arrivals(self) -> list[tuple[float, str]]:
        """Unix time and call of every request since its last start."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/arrivals") as answer,
        ):
            return [(at, call) for at, call in await answer.json()]

    def charges(self, by: str = "marker") -> Counter[str]:
        """How often each marker, or another field `by` of the ledger, was charged."""
        return Counter(line[by] for line in self.lines())

    def lines(self) -> list[dict[str, Any]]:
        """Its charges, oldest first."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [json.loads(line) for line in lines]


@dataclass
class Observers:
    """The publisher and all observers of a site. Open it when a first worker runs, which creates the topics."""

    here: Site
    #: Reads a blob by its URI, if blobs are not in a folder.
    read: Callable[[str], bytes] | None = None
    #: Makes the recording of a job id, if each job needs its own.
    record: Callable[[str], bytes] | None = None
    publisher: Publisher = field(init=False)
    downstreams: list[Downstream] = field(init=False)

    def __post_init__(self) -> None:
        kafka, dsn = self.here.kafka.bootstrap_servers, self.here.postgres.dsn
        self.publisher = Publisher(kafka, self.here.audio, self.record)
        self.downstreams = [Downstream(kafka, dsn, self.read), Downstream(kafka, dsn, self.read)]
        self.statuses = StatusObserver(kafka)
        everything = registry.all_topics(self.here.recognizers)
        names = [name for topic in everything for name in (topic.name, topic.dead_letters)]
        self.recorder = TopicRecorder(kafka, tuple(names))
        self.poller = StatusPoller(lambda: [w.url for w in self.here.workers.values() if "track" in w.argv])
        self.sampler = OffsetSampler(kafka, dsn, [f"concord.{stage}" for stage in inputs(self.here.recognizers)])
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Observers:
        followers = (self.statuses.follower, self.recorder.follower, self.sampler, self.poller)
        for client in (self.publisher, *self.downstreams, *followers):
            await self._stack.enter_async_context(client)
        self.publisher.on_upload.append(self.poller.follow)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def unfinished(self) -> list[str]:
        """Uploads whose terminal event an observer has not received."""
        return [job for job in self.publisher.uploads if not all(d.seen.get((job, 1)) for d in self.downstreams)]

    def without_document(self) -> list[str]:
        """Completed runs without a document, if a worker creates documents."""
        if not any("document" in worker.argv for worker in self.here.workers.values()):
            return []
        made = {
            json.loads(r.value)["job_id"] for (t, _, _), r in self.recorder.records.items() if t == "document.generated"
        }
        ended = self.downstreams[0].seen.items()
        return [job for (job, _), seen in ended if seen[0].topic == "persisted" and job not in made]

    def without_dead_letter(self) -> list[bytes]:
        """Malformed records without a dead letter."""
        letters = {record.value for (topic, _, _), record in self.recorder.records.items() if topic.endswith(".dlq")}
        return [value for value, _ in self.publisher.malformed if value not in letters]

    def request_count(self, jobs: list[str]) -> int:
        """The number of requests for these jobs on the topics of recognizers."""
        keys = {job.encode() for job in jobs}
        return sum(t.startswith("asr.requests.") and r.key in keys for (t, _, _), r in self.recorder.records.items())

    async def finished(self, seconds: float) -> bool:
        """Wait until every upload has ended; False after `seconds` without any new event.

        The time starts again with every event, so that a slow machine is not mistaken for a lost event.
        """
        seen, deadline = -1, 0.0
        while self.unfinished() or self.without_dead_letter() or self.without_document():
            if len(self.recorder.records) > seen:
                seen, deadline = len(self.recorder.records), time.monotonic() + seconds
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    async def quiet(self, seconds: float = 15.0) -> bool:
        """Wait until every stage has committed all records of its topics; False after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await self._lag() == 0:
                return True
            await asyncio.sleep(0.5)
        return False

    async def _lag(self) -> int:
        """The number of records that are not committed. Transaction markers at the end of a partition do not count."""
        with contextlib.suppress(*OUTAGES):
            committed = await self.sampler.sample()
            lag = 0
            for stage, read in inputs(self.here.recognizers).items():
                for topic, partition, offset in self.recorder.records:
                    lag += topic in read and committed.get((f"concord.{stage}", topic, partition), 0) <= offset
            return lag
        return 1

    async def verdict(self, *, all_heard: bool = True) -> Verdict:
        """Check the guarantees on all events up to now."""
        for downstream in self.downstreams:
            await downstream.checked()
        await with_retries(self.sampler.sample)
        await self.poller.compare_all(self.statuses.versions)
        return verdict_on(
            self.publisher,
            self.downstreams,
            self.statuses,
            self.poller,
            self.recorder,
            self.sampler,
            await with_retries(self.here.charges),
            self.here.recognizers,
            all_heard=all_heard,
        )

    async def report(self, jobs: int = 3) -> str:
        """A description of the first unfinished jobs, for error messages."""
        return "\n".join([await self.describe(job) for job in self.unfinished()[:jobs]])

    async def describe(self, job: str) -> str:
        """A job's rows and events, for error messages."""
        connection = await asyncpg.connect(self.here.postgres.dsn)
        try:
            row = await connection.fetchrow("SELECT status, version, reason FROM jobs WHERE job_id = $1", job)
            requests = await connection.fetch(
                "SELECT provider, state, token, error FROM provider_requests WHERE job_id = $1", job
            )
            waiting = await connection.fetch(
                "SELECT topic, due_at - now() AS due FROM outbox WHERE key = $1", job.encode()
            )
        finally:
            await connection.close()
        events = [f"{t}/{p}/{o}" for (t, p, o), r in self.recorder.records.items() if r.key == job.encode()]
        return f"{job}: {row}\n  {requests}\n  outbox {waiting}\n  events {events}"
