"""A fleet of real processes on real servers, to be killed in any way; and everything that watches it."""

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
from agents.stages import registry
from tests.servers.gcs import BUCKET
from tests.servers.proxy import Proxy
from tests.system.checker import Verdict, inputs, verdict_on
from tests.system.nursery import ROOT, Nursery
from tests.system.observers import AWAY, TENANT, Asker, Downstream, Publisher, Sampler, Statuses, Tap, patiently

RECOGNIZERS = ("scripted-a", "scripted-b")
#: A recognizer that has all its answers by a marker, and one that uploads, known by the URL of its audio only.
MIXED = ("scripted-a", "assemblyai")
#: The vendors' own protocols: what a fleet with keys speaks.
CLOUD = ("assemblyai", "google")

#: Seconds in which a request may still arrive, here: less than `agents/asr` assumes of servers that are not ours.
SETTLES_S = 5.0


def roles_with(recognizers: tuple[str, ...]) -> tuple[str, ...]:
    """Every role of a fleet with these recognizers."""
    return registry.roles(recognizers)


ROLES = roles_with(RECOGNIZERS)

_numbers = itertools.count(1)


async def until(condition: Callable[[], Any], seconds: float, *, every_s: float = 0.05) -> bool:
    """Wait for a condition; False when it does not hold within `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(every_s)
    return True


class Site:
    """Kafka, PostgreSQL and the recognizers' servers, with a folder for files; each can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        *,
        nodes: int = 1,
        advertised: list[int] | None = None,
        recognizers: tuple[str, ...] = RECOGNIZERS,
    ) -> None:
        self.folder = folder
        self.recognizers = recognizers
        self.nursery = nursery
        self.kafka = EmbeddedKafka(folder, nodes=nodes, heap_mb=300, advertised_port=advertised)
        self.postgres = EmbeddedPostgres(folder)
        self.provider = Provider(folder / "provider")
        self.assemblyai = Provider(folder / "assemblyai", "assemblyai")
        self.google = Provider(folder / "google", "google_speech")
        #: Whose recording it is in which Google hears this; filled by whoever makes recordings.
        self.sounds: dict[str, str] = {}
        #: In front of PostgreSQL and the recognizers' server, for the workers; in front of Kafka's nodes, for the test
        #: too.
        self.proxies: dict[str, Proxy] = {}
        self.workers: dict[str, Worker] = {}
        #: Environment that all workers share, besides what `environment` says.
        self.common: dict[str, str] = {}

    @property
    def audio(self) -> Path:
        """The folder that uploads may be read from."""
        return self.folder / "audio"

    def environment(self, name: str) -> dict[str, str]:
        """What a worker of this name is told."""
        dsn, provider = self.postgres.dsn, self.provider.port
        if "postgres" in self.proxies:
            dsn = dsn.replace(f":{self.postgres.port}/", f":{self.proxies['postgres'].port}/")
        if "provider" in self.proxies:
            provider = self.proxies["provider"].port
        kept = {k: os.environ[k] for k in ("PATH", "HOME", "PYTHONPATH", "LANG") if k in os.environ}
        return kept | {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "DATABASE_URL": dsn,
            "SCRIPTED_BASE_URL": f"http://127.0.0.1:{provider}",
            "ASSEMBLYAI_BASE_URL": f"http://127.0.0.1:{self.assemblyai.port}",
            "ASSEMBLYAI_API_KEY": "any",
            "GOOGLE_SPEECH_ENDPOINT": f"http://127.0.0.1:{self.google.grpc}",
            "GOOGLE_CLOUD_PROJECT": "our-project",
            "GRPC_VERBOSITY": "ERROR",
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
        """The same for every start: a `track` worker gets its place back by it."""
        folder = self.folder / "workers" / name
        folder.mkdir(exist_ok=True)
        return keep_ports(folder / "ports.json", ["http"], {})["http"]

    def worker(self, *roles: str, name: str = "", mutant: str = "", **env: str) -> Worker:
        """A worker that is not started yet; `env` in lower case, as in `concord_instance="w1"`."""
        name = name or f"{'-'.join(roles) if len(roles) < 3 else 'all'}-{next(_numbers)}"
        more = {key.upper(): value for key, value in env.items()}
        worker = Worker(self, name, ["worker", *roles], self.environment(name) | more, mutant)
        self.workers[name] = worker
        return worker

    async def __aenter__(self) -> Site:
        (self.folder / "workers").mkdir(parents=True)
        await asyncio.gather(self.kafka.start(), self.postgres.start(), *(p.start() for p in self._providers()))
        return self

    @property
    def servers(self) -> list[Child]:
        """The processes of Kafka and PostgreSQL."""
        return [*(node.child for node in self.kafka._nodes), self.postgres._child]

    def _providers(self) -> list[Provider]:
        vendors = {"assemblyai": self.assemblyai, "google": self.google}
        used = [vendors.get(name, self.provider) for name in self.recognizers]
        return list(dict.fromkeys(used))

    async def charges(self) -> Counter[str]:
        """How often each marker was charged. AssemblyAI's ledger knows URLs: PostgreSQL says whose they were. Google's
        knows what it heard, one piece a recording: `sounds` says whose that was.
        """
        charged = self.provider.charges("marker")
        urls = self.assemblyai.charges("audio_url")
        if urls:
            connection = await asyncpg.connect(self.postgres.dsn)
            kept = await connection.fetch("SELECT audio_url, marker FROM provider_requests WHERE audio_url IS NOT NULL")
            await connection.close()
            markers = {row["audio_url"]: row["marker"] for row in kept}
            for url, count in urls.items():
                charged[markers.get(url, f"nobody's {url}")] += count
        for heard, count in self.google.charges("heard").items():
            job = self.sounds.get(heard)
            charged[f"concord-{TENANT}~{job}~1~google" if job else f"nobody's {heard}"] += count
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
    """A site of its own, in a folder that goes with it. When the test fails, the ends of all logs are printed.

    `storage` is where Google reads recordings from: with it, they go to it whole.
    """
    folder = Path(tempfile.mkdtemp(prefix="concord-test-"))
    folder.chmod(0o755)  # as root, PostgreSQL's user must get through
    try:
        async with contextlib.AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(Nursery())
            names = ["postgres", "provider", *(f"kafka-{n + 1}" for n in range(nodes))] if proxies else []
            between = {name: await stack.enter_async_context(Proxy(("127.0.0.1", 0))) for name in names}
            advertised = [between[name].port for name in names if name.startswith("kafka")]
            here = Site(folder, nursery, nodes=nodes, advertised=advertised or None, recognizers=recognizers)
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
    """What a command of an operator prints. It must succeed."""
    command = (sys.executable, "-m", "agents", *words)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=here.environment("operator"), stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, f"{' '.join(words)}: {said.decode()}"
    return said.decode()


class Worker:
    """One process of the fleet, by fork or (`plain`) by the command line; can be started again after its end."""

    def __init__(self, here: Site, name: str, argv: list[str], env: dict[str, str], mutant: str = "") -> None:
        self.name = name
        self.env = env
        self.argv = argv
        #: The work tree that `start_plain` runs.
        self.tree = ROOT
        self.log = here.folder / "workers" / f"{name}.log"
        self.url = f"http://{env['CONCORD_HTTP']}"
        self._nursery = here.nursery
        self._mutant = mutant
        self._pid: int | None = None
        self._ended: asyncio.Future[int] | None = None

    @property
    def state(self) -> str:
        """For messages."""
        if self._ended is None:
            return "never started"
        return f"ended with {self._ended.result()}" if self._ended.done() else f"running as {self._pid}"

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        assert self._pid is not None, f"{self.name} was never started"
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether its process runs (or is stopped)."""
        return self._ended is not None and not self._ended.done()

    async def start(self, **env: str) -> Worker:
        """Start the process, with more environment for this once."""
        assert not self.alive, f"{self.name} runs already"
        more = {key.upper(): value for key, value in env.items()}
        self._pid = await self._nursery.spawn(self.argv, self.env | more, self.log, self._mutant)
        self._ended = self._nursery.ended(self._pid)
        return self

    async def start_plain(self, **env: str) -> Worker:
        """The same by `python -m agents`, as an operator starts it."""
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
        """Its exit status (minus the signal's number), within `seconds`; else AssertionError."""
        assert self._ended is not None
        try:
            return await asyncio.wait_for(asyncio.shield(self._ended), seconds)
        except TimeoutError:
            raise AssertionError(f"{self.name} has not ended within {seconds} s:\n{tail(self.log, 60)}") from None

    async def ready(self, seconds: float = 60) -> Worker:
        """Wait until this start's log says that it runs; AssertionError when it ends before."""
        before = self.said("running: ")
        if not await until(lambda: self.said("running: ") > before or not self.alive, seconds) or not self.alive:
            raise AssertionError(f"{self.name} does not run ({self.state}):\n{tail(self.log, 60)}")
        return self

    def said(self, what: str) -> int:
        """How often its log says this, over all its starts."""
        return self.log.read_text(errors="replace").count(what) if self.log.exists() else 0


class Provider:
    """A server of `tests/servers`: a process with a ledger of what it charged, which nothing takes back."""

    def __init__(self, folder: Path, server: str = "scripted") -> None:
        folder.mkdir(parents=True)
        #: More of its command line.
        self.options: dict[str, str] = {}
        ports = keep_ports(folder / "ports.json", ["http", "grpc"], {})
        #: Of its switches, and of what it serves unless that is gRPC.
        self.port = ports["http"]
        self.grpc = ports["grpc"]
        self.ledger = folder / "ledger.jsonl"
        self._server = server
        self._child = Child(f"the {server} server", folder / "pid.json", folder / "server.log")
        self._folder = folder

    async def start(self) -> None:
        """Start it (again), and wait for its first answer."""
        served: dict[str, object] = {"--port": self.port}
        if self._server == "google_speech":
            served = {"--port": self.grpc, "--control": self.port}
        given = [str(part) for option in (served | self.options).items() for part in option]
        command = [sys.executable, "-m", f"tests.servers.{self._server}", *given, "--ledger", str(self.ledger)]
        env = {k: v for k, v in os.environ.items() if not k.startswith("CONCORD_")}
        self._child.spawn(command, env=env | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}, cwd=ROOT)
        await patiently(self.switch)

    def kill(self) -> None:
        """`kill -9`."""
        self._child.kill()

    async def switch(self, **switches: Any) -> None:
        """Change how it answers; without arguments, back to normal."""
        async with aiohttp.ClientSession() as session:
            try:
                async with session.put(f"http://127.0.0.1:{self.port}/switches", json=switches) as answer:
                    answer.raise_for_status()
            except aiohttp.ClientError as exc:
                raise ConnectionError(str(exc)) from exc

    async def arrivals(self) -> list[tuple[float, str]]:
        """When requests came since its last start, in Unix time, and what each was."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/arrivals") as answer,
        ):
            return [(at, call) for at, call in await answer.json()]

    def charges(self, by: str = "marker") -> Counter[str]:
        """How often each marker, or what else a charge is known `by`, was charged."""
        return Counter(line[by] for line in self.lines())

    def lines(self) -> list[dict[str, Any]]:
        """Its charges, oldest first."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [json.loads(line) for line in lines]


@dataclass
class Watch:
    """The publisher and every observer of a site. Open it when a first worker runs: it makes the topics."""

    here: Site
    #: How observers read a blob by its URI, where it is not in a folder.
    read: Callable[[str], bytes] | None = None
    #: Makes the recording of a job id, where each is to be another.
    record: Callable[[str], bytes] | None = None
    publisher: Publisher = field(init=False)
    downstreams: list[Downstream] = field(init=False)

    def __post_init__(self) -> None:
        kafka, dsn = self.here.kafka.bootstrap_servers, self.here.postgres.dsn
        self.publisher = Publisher(kafka, self.here.audio, self.record)
        self.downstreams = [Downstream(kafka, dsn, self.read), Downstream(kafka, dsn, self.read)]
        self.statuses = Statuses(kafka)
        everything = registry.all_topics(self.here.recognizers)
        names = [name for topic in everything for name in (topic.name, topic.dead_letters)]
        self.tap = Tap(kafka, tuple(names))
        self.asker = Asker(lambda: [w.url for w in self.here.workers.values() if "track" in w.argv])
        self.sampler = Sampler(kafka, dsn, [f"concord.{stage}" for stage in inputs(self.here.recognizers)])
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Watch:
        followers = (self.statuses.follower, self.tap.follower, self.sampler, self.asker)
        for watching in (self.publisher, *self.downstreams, *followers):
            await self._stack.enter_async_context(watching)
        self.publisher.told.append(self.asker.follow)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def waiting(self) -> list[str]:
        """Uploads of which an observer has not seen the end."""
        return [job for job in self.publisher.uploads if not all(d.seen.get((job, 1)) for d in self.downstreams)]

    def undocumented(self) -> list[str]:
        """Completed runs of which no document was seen, where a worker makes documents."""
        if not any("document" in worker.argv for worker in self.here.workers.values()):
            return []
        made = {json.loads(r.value)["job_id"] for (t, _, _), r in self.tap.records.items() if t == "document.generated"}
        ended = self.downstreams[0].seen.items()
        return [job for (job, _), seen in ended if seen[0].topic == "persisted" and job not in made]

    def unanswered(self) -> list[bytes]:
        """Rubbish of which no dead letter was seen."""
        letters = {record.value for (topic, _, _), record in self.tap.records.items() if topic.endswith(".dlq")}
        return [value for value, _ in self.publisher.rubbish if value not in letters]

    def asked(self, jobs: list[str]) -> int:
        """How many requests to recognize these jobs are on the stream."""
        keys = {job.encode() for job in jobs}
        return sum(t.startswith("asr.requests.") and r.key in keys for (t, _, _), r in self.tap.records.items())

    async def finished(self, seconds: float) -> bool:
        """Whether everything that was accepted comes to its end within `seconds` without any progress.

        That is: `seconds` count anew with every event, so that a slow machine is not taken for a loss.
        """
        seen, give_up = -1, 0.0
        while self.waiting() or self.unanswered() or self.undocumented():
            if len(self.tap.records) > seen:
                seen, give_up = len(self.tap.records), time.monotonic() + seconds
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(0.1)
        return True

    async def quiet(self, seconds: float = 15.0) -> bool:
        """Whether every stage has read, handled and committed all there is, within `seconds`."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if await self._lag() == 0:
                return True
            await asyncio.sleep(0.5)
        return False

    async def _lag(self) -> int:
        """Records that are not committed. What followed the last record of a partition (a marker) does not count."""
        with contextlib.suppress(*AWAY):
            committed = await self.sampler.sample()
            lag = 0
            for stage, read in inputs(self.here.recognizers).items():
                for topic, partition, offset in self.tap.records:
                    lag += topic in read and committed.get((f"concord.{stage}", topic, partition), 0) <= offset
            return lag
        return 1

    async def verdict(self, *, all_heard: bool = True) -> Verdict:
        """The verdict on everything up to now."""
        for downstream in self.downstreams:
            await downstream.looked()
        await patiently(self.sampler.sample)
        await self.asker.ask_all(self.statuses.versions)
        return verdict_on(
            self.publisher,
            self.downstreams,
            self.statuses,
            self.asker,
            self.tap,
            self.sampler,
            await patiently(self.here.charges),
            self.here.recognizers,
            all_heard=all_heard,
        )

    async def story(self, job: str) -> str:
        """What the database knows of a job, for a message."""
        connection = await asyncpg.connect(self.here.postgres.dsn)
        try:
            row = await connection.fetchrow("SELECT status, version, reason FROM jobs WHERE job_id = $1", job)
            asked = await connection.fetch(
                "SELECT provider, state, token, error FROM provider_requests WHERE job_id = $1", job
            )
            waiting = await connection.fetch(
                "SELECT topic, due_at - now() AS due FROM outbox WHERE key = $1", job.encode()
            )
        finally:
            await connection.close()
        events = [f"{t}/{p}/{o}" for (t, p, o), r in self.tap.records.items() if r.key == job.encode()]
        return f"{job}: {row}\n  {asked}\n  outbox {waiting}\n  events {events}"
