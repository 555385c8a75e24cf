"""Strangers to Concord: a publisher and observers on plain aiokafka and asyncpg, that import nothing of ours.

What they wrote down is what Concord is judged by (`tests/system/checker.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import random
import struct
import time
import uuid
import wave
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

TENANT = "acme"
TERMINAL = ("persisted", "job.failed")

#: What a client of a server that may be killed at any moment must expect.
AWAY = (OSError, TimeoutError, KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

#: Seconds for which somebody asks a server that does not answer, before the test fails for that.
PATIENCE_S = 90.0

Run = tuple[str, int]


async def patiently(call: Callable[[], Awaitable[Any]]) -> Any:
    """The call's answer, however often the server is killed meanwhile."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            async with asyncio.timeout(20):
                return await call()
        except AWAY:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.2)


def recording(seconds: float = 0.2) -> bytes:
    """A WAV file of a tone, 16 kHz mono."""
    samples = (int(8000 * math.sin(2 * math.pi * 440 * n / 16_000)) for n in range(int(16_000 * seconds)))
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return content.getvalue()


@dataclass
class Upload:
    """An upload that Kafka acknowledged: from then on it must not be lost."""

    job_id: str
    #: Its recording does not exist, so it must end as `job.failed`.
    hopeless: bool
    accepted_at: float


class Publisher:
    """Uploads as a stranger sends them. `uploads` is the test's own list of what was accepted, by job id.

    All are of one recording, unless `record` makes each its own.
    """

    def __init__(self, servers: str, audio: Path, record: Callable[[str], bytes] | None = None) -> None:
        self._servers = servers
        self._audio = audio
        self._record = record
        self.uploads: dict[str, Upload] = {}
        #: Records that are no uploads, as (value, accepted at).
        self.rubbish: list[tuple[bytes, float]] = []
        #: Called with the job id of every accepted upload.
        self.told: list[Callable[[str], object]] = []
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        self._audio.mkdir(parents=True, exist_ok=True)
        (self._audio / "call.wav").write_bytes(recording())
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._servers, acks="all", enable_idempotence=True, request_timeout_ms=10_000
        )
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._producer is not None:
            with contextlib.suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(self._producer.stop(), 5)

    async def upload(self, *, times: int = 1, hopeless: bool = False) -> str:
        """Publish one upload until Kafka has acknowledged it (so perhaps twice), `times` over; its job id."""
        job_id = str(uuid.uuid4())
        file = "missing.wav" if hopeless else f"{job_id}.wav" if self._record else "call.wav"
        if self._record and not hopeless:
            (self._audio / file).write_bytes(self._record(job_id))
        data = {
            "tenant_id": TENANT,
            "job_id": job_id,
            "audio_uri": (self._audio / file).as_uri(),
            "filename": file,
        }
        for _ in range(times):
            await self._send(json.dumps(data).encode(), job_id.encode())
        self.uploads[job_id] = Upload(job_id, hopeless, time.monotonic())
        for tell in self.told:
            tell(job_id)
        return job_id

    async def uploads_of(self, count: int, *, chance: random.Random | None = None, pause_s: float = 0.0) -> list[str]:
        """`count` uploads; by chance some of them twice, some without a recording."""
        jobs = []
        for _ in range(count):
            twice = chance is not None and chance.random() < 0.1
            hopeless = chance is not None and chance.random() < 0.05
            jobs.append(await self.upload(times=2 if twice else 1, hopeless=hopeless))
            await asyncio.sleep(pause_s)
        return jobs

    async def spoil(self) -> None:
        """Publish something that is no upload: it must be kept in the dead letters, and stop nothing."""
        value = b'{"tenant_id": "' + uuid.uuid4().hex.encode()
        await self._send(value, None)
        self.rubbish.append((value, time.monotonic()))

    async def _send(self, value: bytes, key: bytes | None) -> None:
        producer = self._producer
        assert producer is not None
        await patiently(lambda: producer.send_and_wait("audio.uploaded", value, key))


class Follower:
    """Reads topics from their beginning, as any `read_committed` client does, without a group; goes on after every
    outage.
    """

    def __init__(self, servers: str, topics: Iterable[str], seen: Callable[[ConsumerRecord], None]) -> None:
        self._servers = servers
        self._topics = tuple(topics)
        self._seen = seen
        self._next: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def failure(self) -> BaseException | None:
        """What ended it, if it has ended: then the test has seen nothing since, and must fail."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except AWAY:
                await asyncio.sleep(0.5)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=200,
        )
        await consumer.start()
        try:
            await self._assign(consumer)
            while True:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
                        self._seen(record)
        finally:
            with contextlib.suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(consumer.stop(), 5)

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        cluster = await consumer._client.fetch_all_metadata()
        partitions = [TopicPartition(t, n) for t in self._topics for n in cluster.partitions_for_topic(t) or ()]
        if {tp.topic for tp in partitions} != set(self._topics):
            raise TimeoutError("some topics are not there yet")
        consumer.assign(partitions)
        for tp in partitions:
            if tp in self._next:
                consumer.seek(tp, self._next[tp])
            else:
                await consumer.seek_to_beginning(tp)


@dataclass
class Sighting:
    """A terminal event as an observer saw it."""

    topic: str
    at: float
    error: str = ""


class Downstream:
    """A subscriber to the terminal events, which at once uses what a completion promises: both files, and the rows.

    `seen` has every terminal event by (job, run); `torn` what was promised and not there, or not whole.
    """

    def __init__(self, servers: str, dsn: str, read: Callable[[str], bytes] | None = None) -> None:
        #: A folder is always there; another store is asked until it answers.
        self._read, self._patiently = (read, patiently) if read else (_content, _at_once)
        self.seen: defaultdict[Run, list[Sighting]] = defaultdict(list)
        self.torn: list[str] = []
        #: Recognizers whose words are in each completed transcript.
        self.heard: dict[Run, list[str]] = {}
        self._dsn = dsn
        self._looks: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self.follower = Follower(servers, TERMINAL, self._saw)

    async def __aenter__(self) -> Self:
        await self.follower.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.follower.__aexit__()
        for look in self._looks:
            look.cancel()
        if self._connection is not None:
            self._connection.terminate()

    async def looked(self) -> None:
        """Everything that was promised so far has been looked at."""
        while self._looks:
            await asyncio.gather(*self._looks)

    def _saw(self, record: ConsumerRecord) -> None:
        data = json.loads(record.value)
        self.seen[data["job_id"], data["run"]].append(Sighting(record.topic, time.monotonic(), data.get("error", "")))
        if record.topic == "persisted":
            look = asyncio.create_task(self._look(data))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _look(self, data: dict[str, Any]) -> None:
        try:
            await self._patiently(lambda: asyncio.to_thread(self._look_at_files, data))
            async with self._one:
                await patiently(lambda: self._look_at_rows(data))
        except (LookupError, ValueError, OSError) as exc:
            self.torn.append(f"{data['job_id']}/{data['run']}: {type(exc).__name__}: {exc}")

    def _look_at_files(self, data: dict[str, Any]) -> None:
        optimized = json.loads(self._read(data["agent_optimized_uri"]))
        raw = json.loads(self._read(data["raw_transcript_uri"]))
        _must(
            optimized["job_id"] == data["job_id"] and optimized["tenant_id"] == TENANT,
            "agent_optimized.json is another job's",
        )
        words = [d["chosen"]["text"] for d in raw["decisions"] if d["chosen"]["text"] is not None]
        _must(
            len(words) == data["word_count"],
            f"raw_transcript.json has {len(words)} words, announced {data['word_count']}",
        )
        _must(optimized["transcript"]["text"] == " ".join(words), "the two files differ")
        self.heard[data["job_id"], data["run"]] = optimized["metadata"]["recognizers"]

    async def _look_at_rows(self, data: dict[str, Any]) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn, timeout=10)
        fetch, run = self._connection.fetchrow, (data["job_id"], data["run"])
        job = await fetch("SELECT status, run FROM jobs WHERE job_id = $1", run[0])
        _must(job is not None and (job["run"] > run[1] or job["status"] == "completed"), f"the job's row is {job}")
        transcript = await fetch(
            "SELECT words, raw_transcript_uri FROM transcripts WHERE job_id = $1 AND run = $2", *run
        )
        _must(transcript is not None, "there is no transcript's row")
        _must(transcript["words"] == data["word_count"], f"the row has {transcript['words']} words")
        kinds = await fetch("SELECT array_agg(kind) AS kinds FROM files WHERE job_id = $1 AND run = $2", *run)
        _must({"agent_optimized", "metadata"} <= set(kinds["kinds"] or ()), f"rows of files: {kinds['kinds']}")


def _content(uri: str) -> bytes:
    parts = urlsplit(uri)
    _must(parts.scheme == "file", uri)
    return Path(unquote(parts.path)).read_bytes()


async def _at_once(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


def _must(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


class Statuses:
    """Follows `job.status`: the versions of a job only rise, none is left out, and nothing of a run changes after its
    end but its enrichments.
    """

    def __init__(self, servers: str) -> None:
        self.backward: list[str] = []
        self.missed: list[str] = []
        self.versions: dict[str, int] = {}
        #: What was said of each run at its end, without what may change after it.
        self._ended: dict[Run, dict[str, Any]] = {}
        self.follower = Follower(servers, ("job.status",), self._saw)

    def _saw(self, record: ConsumerRecord) -> None:
        data = json.loads(record.value)
        job, run, version = data["job_id"], data["run"], data["version"]
        what = f"{job}/{run}: {data['status']} {version} at job.status/{record.partition}/{record.offset}"
        if version <= self.versions.get(job, 0):
            self.backward.append(f"{what} after {self.versions[job]}")
        if version > self.versions.get(job, 0) + 1:
            self.missed.append(f"{what} after {self.versions.get(job, 0)}")
        end = {name: value for name, value in data.items() if name not in ("version", "updated_at", "enrichment")}
        if self._ended.get((job, run), end) != end:
            self.backward.append(f"{what} after the run's end")
        self.versions[job] = max(version, self.versions.get(job, 0))
        if data["status"] in ("completed", "failed"):
            self._ended[job, run] = end


class Asker:
    """Two who keep asking for the status of the newest jobs over HTTP, any workers with a table, and never want to hear
    an older one than either had been told when it asked.
    """

    def __init__(self, urls: Callable[[], list[str]]) -> None:
        self.backward: list[str] = []
        self.wrong: list[str] = []
        self.answers = 0
        #: Seconds between two questions of one of them.
        self.pause_s = 0.1
        self._urls = urls
        self._jobs: deque[str] = deque(maxlen=20)
        self._heard: dict[str, tuple[int, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3))
        self._tasks = [asyncio.create_task(self._keep_asking()) for _ in range(2)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._session is not None:
            await self._session.close()

    def follow(self, job: str) -> None:
        """Ask for this one."""
        self._jobs.append(job)

    def failure(self) -> BaseException | None:
        """What ended it, if it has ended."""
        return next((task.exception() for task in self._tasks if task.done()), None)

    async def ask_all(self, versions: dict[str, int]) -> None:
        """At the end every worker that answers has the newest version of every job."""
        for url in self._urls():
            for job, version in versions.items():
                answer = await self._ask(url, job)
                if answer is not None and answer["version"] != version:
                    self.wrong.append(
                        f"{job} is said to be {answer['status']} {answer['version']}, not {version}, by {url}"
                    )

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(self.pause_s)
            urls = self._urls()
            if urls and self._jobs:
                await self._ask(random.choice(urls), random.choice(self._jobs))

    async def _ask(self, url: str, job: str) -> dict[str, Any] | None:
        assert self._session is not None
        before = self._heard.get(job, (0, ""))
        # As a tenant asks, who is answered from the table where it is current, or as an operator who knows the id only.
        whose = random.choice(({}, {"tenant": TENANT}))
        try:
            async with self._session.get(f"{url}/jobs/{job}/status", params=whose) as response:
                answer = await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        if answer is not None:
            self._hear(url, job, answer, *before)
        return answer

    def _hear(self, url: str, job: str, answer: dict[str, Any], before: int, whose: str) -> None:
        self.answers += 1
        if answer["version"] < before:
            self.backward.append(f"{job}: {url} says {answer['status']} {answer['version']} after {before} by {whose}")
        self._heard[job] = max(self._heard.get(job, (0, "")), (answer["version"], url))


@dataclass
class Tap:
    """Keeps every record of every topic, for the questions that are asked at the end."""

    servers: str
    topics: tuple[str, ...]
    records: dict[tuple[str, int, int], ConsumerRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.follower = Follower(self.servers, self.topics, self._saw)

    def _saw(self, record: ConsumerRecord) -> None:
        self.records[record.topic, record.partition, record.offset] = record


class Sampler:
    """Once a second: what every group has committed, and right after that what is handled.

    In this order: an event that was handled when its offset was committed is in the inbox that is read later. So
    whatever this convicts is guilty, and only what finished within the milliseconds between the two questions goes
    unseen.
    """

    def __init__(self, servers: str, dsn: str, groups: Iterable[str]) -> None:
        self._servers = servers
        self._dsn = dsn
        self._groups = tuple(groups)
        #: Number of the first sample in which an offset was committed, by (group, topic, partition): [(sample,
        #: offset)].
        self.committed: defaultdict[tuple[str, str, int], list[tuple[int, int]]] = defaultdict(list)
        #: Number of the first sample in which an event was in the inbox.
        self.handled: dict[tuple[str, str], int] = {}
        self.samples = 0
        self._task: asyncio.Task[None] | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._connection: asyncpg.Connection | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._every_second())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._close()

    def failure(self) -> BaseException | None:
        """What ended it, if it has ended."""
        return self._task.exception() if self._task is not None and self._task.done() else None

    async def _every_second(self) -> None:
        while True:
            try:
                async with asyncio.timeout(10):
                    await self.sample()
            except AWAY:
                await self._close()
            await asyncio.sleep(1)

    async def sample(self) -> dict[tuple[str, str, int], int]:
        """Look once; what is committed now."""
        if self._admin is None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._servers, request_timeout_ms=5000)
            await admin.start()
            self._admin = admin
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn, timeout=5)
        found = {}
        for group in self._groups:
            for tp, known in (await self._admin.list_consumer_group_offsets(group)).items():
                found[group, tp.topic, tp.partition] = known.offset
        rows = await self._connection.fetch("SELECT stage, event_id FROM inbox")
        self.samples += 1
        for place, offset in found.items():
            if not self.committed[place] or self.committed[place][-1][1] < offset:
                self.committed[place].append((self.samples, offset))
        for row in rows:
            self.handled.setdefault((row["stage"], str(row["event_id"])), self.samples)
        return found

    async def _close(self) -> None:
        admin, self._admin = self._admin, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        if admin is not None:
            with contextlib.suppress(*AWAY):
                await asyncio.wait_for(admin.close(), 5)
