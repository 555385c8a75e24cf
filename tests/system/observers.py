"""A publisher and observers: plain clients of Kafka, PostgreSQL and HTTP that import no code of Concord.

`tests/system/checker.py` compares what they have recorded with the guarantees of Concord.
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

#: Errors of a client whose server is killed.
OUTAGES = (
    OSError,
    TimeoutError,
    KafkaError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

#: Seconds for which a call to a server that does not answer is retried, before the test fails.
RETRY_S = 90.0

Run = tuple[str, int]


async def with_retries(call: Callable[[], Awaitable[Any]]) -> Any:
    """The result of the call, which is retried while the server is unavailable.

    Raises:
        OUTAGES: the server was unavailable for RETRY_S seconds.
    """
    deadline = time.monotonic() + RETRY_S
    while True:
        try:
            async with asyncio.timeout(20):
                return await call()
        except OUTAGES:
            if time.monotonic() > deadline:
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
    """An upload that Kafka has acknowledged, and that must not be lost from then on."""

    job_id: str
    #: Its recording does not exist, so that it must end with `job.failed`.
    without_audio: bool
    accepted_at: float


class Publisher:
    """Publishes uploads as an external producer. `uploads` are the accepted ones, by job id.

    All have the same recording, unless `record` makes one for each.
    """

    def __init__(self, servers: str, audio: Path, record: Callable[[str], bytes] | None = None) -> None:
        self._servers = servers
        self._audio = audio
        self._record = record
        self.uploads: dict[str, Upload] = {}
        #: Malformed records, as (value, time of the acknowledgement).
        self.malformed: list[tuple[bytes, float]] = []
        #: Called with the job id of every accepted upload.
        self.on_upload: list[Callable[[str], object]] = []
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

    async def upload(self, *, times: int = 1, without_audio: bool = False, **more: Any) -> str:
        """Publish one upload `times` times, each until Kafka acknowledges it (perhaps twice); returns its job id."""
        job_id = str(uuid.uuid4())
        file = "missing.wav" if without_audio else f"{job_id}.wav" if self._record else "call.wav"
        if self._record and not without_audio:
            (self._audio / file).write_bytes(self._record(job_id))
        data = {
            "tenant_id": TENANT,
            "job_id": job_id,
            "audio_uri": (self._audio / file).as_uri(),
            "filename": file,
            **more,
        }
        for _ in range(times):
            await self._send(json.dumps(data).encode(), job_id.encode())
        self.uploads[job_id] = Upload(job_id, without_audio, time.monotonic())
        for callback in self.on_upload:
            callback(job_id)
        return job_id

    async def uploads_of(self, count: int, *, chance: random.Random | None = None, pause_s: float = 0.0) -> list[str]:
        """Publish `count` uploads; with `chance`, a tenth of them twice and a twentieth without a recording."""
        jobs = []
        for _ in range(count):
            twice = chance is not None and chance.random() < 0.1
            without_audio = chance is not None and chance.random() < 0.05
            jobs.append(await self.upload(times=2 if twice else 1, without_audio=without_audio))
            await asyncio.sleep(pause_s)
        return jobs

    async def publish_malformed(self) -> None:
        """Publish a malformed record: it must become a dead letter, and must not stop other events."""
        value = b'{"tenant_id": "' + uuid.uuid4().hex.encode()
        await self._send(value, None)
        self.malformed.append((value, time.monotonic()))

    async def _send(self, value: bytes, key: bytes | None) -> None:
        producer = self._producer
        assert producer is not None
        await with_retries(lambda: producer.send_and_wait("audio.uploaded", value, key))


class Follower:
    """Reads topics from their beginning as a `read_committed` client without a group; continues after every outage."""

    def __init__(self, servers: str, topics: Iterable[str], on_record: Callable[[ConsumerRecord], None]) -> None:
        self._servers = servers
        self._topics = tuple(topics)
        self._on_record = on_record
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
        """The error that ended it, if it has ended: the test has observed nothing since, and must fail."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except OUTAGES:
                await asyncio.sleep(0.5)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            await self._assign(consumer)
            while True:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
                        self._on_record(record)
        finally:
            with contextlib.suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(consumer.stop(), 5)

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        cluster = await consumer._client.fetch_all_metadata()
        partitions = [TopicPartition(t, n) for t in self._topics for n in cluster.partitions_for_topic(t) or ()]
        if {tp.topic for tp in partitions} != set(self._topics):
            raise TimeoutError("some topics do not exist yet")
        consumer.assign(partitions)
        for tp in partitions:
            if tp in self._next:
                consumer.seek(tp, self._next[tp])
            else:
                await consumer.seek_to_beginning(tp)


@dataclass
class ObservedEvent:
    """A terminal event with the time at which an observer received it."""

    topic: str
    at: float
    error: str = ""


class Downstream:
    """A consumer of terminal events, which reads both files and the rows of a completed run immediately.

    `seen` has every terminal event by (job, run); `torn` the files and rows that were missing or incomplete.
    """

    def __init__(self, servers: str, dsn: str, read: Callable[[str], bytes] | None = None) -> None:
        #: Files in a folder are read once; another store is retried until it answers.
        self._read, self._retry = (read, with_retries) if read else (_content, _without_retry)
        self.seen: defaultdict[Run, list[ObservedEvent]] = defaultdict(list)
        self.torn: list[str] = []
        #: Recognizers whose words are in each completed transcript, by (job, run).
        self.heard: dict[Run, list[str]] = {}
        self._dsn = dsn
        self._reads: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self.follower = Follower(servers, TERMINAL, self._receive)

    async def __aenter__(self) -> Self:
        await self.follower.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.follower.__aexit__()
        for read in self._reads:
            read.cancel()
        if self._connection is not None:
            self._connection.terminate()

    async def checked(self) -> None:
        """Wait until the files and rows of all completed runs have been read."""
        while self._reads:
            await asyncio.gather(*self._reads)

    def _receive(self, record: ConsumerRecord) -> None:
        data = json.loads(record.value)
        self.seen[data["job_id"], data["run"]].append(
            ObservedEvent(record.topic, time.monotonic(), data.get("error", ""))
        )
        if record.topic == "persisted":
            read = asyncio.create_task(self._check(data))
            self._reads.add(read)
            read.add_done_callback(self._reads.discard)

    async def _check(self, data: dict[str, Any]) -> None:
        try:
            await self._retry(lambda: asyncio.to_thread(self._read_files, data))
            async with self._one:
                await with_retries(lambda: self._read_rows(data))
        except (LookupError, ValueError, OSError) as exc:
            self.torn.append(f"{data['job_id']}/{data['run']}: {type(exc).__name__}: {exc}")

    def _read_files(self, data: dict[str, Any]) -> None:
        optimized = json.loads(self._read(data["agent_optimized_uri"]))
        raw = json.loads(self._read(data["raw_transcript_uri"]))
        _require(
            optimized["job_id"] == data["job_id"] and optimized["tenant_id"] == TENANT,
            "agent_optimized.json is another job's",
        )
        words = [d["chosen"]["text"] for d in raw["decisions"] if d["chosen"]["text"] is not None]
        _require(
            len(words) == data["word_count"],
            f"raw_transcript.json has {len(words)} words, the event {data['word_count']}",
        )
        _require(optimized["transcript"]["text"] == " ".join(words), "the two files differ")
        self.heard[data["job_id"], data["run"]] = optimized["metadata"]["recognizers"]

    async def _read_rows(self, data: dict[str, Any]) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn, timeout=10)
        fetch, run = self._connection.fetchrow, (data["job_id"], data["run"])
        job = await fetch("SELECT status, run FROM jobs WHERE job_id = $1", run[0])
        _require(job is not None and (job["run"] > run[1] or job["status"] == "completed"), f"the job's row is {job}")
        transcript = await fetch(
            "SELECT words, raw_transcript_uri FROM transcripts WHERE job_id = $1 AND run = $2", *run
        )
        _require(transcript is not None, "there is no transcript's row")
        _require(transcript["words"] == data["word_count"], f"the row has {transcript['words']} words")
        kinds = await fetch("SELECT array_agg(kind) AS kinds FROM files WHERE job_id = $1 AND run = $2", *run)
        _require({"agent_optimized", "metadata"} <= set(kinds["kinds"] or ()), f"rows of files: {kinds['kinds']}")


def _content(uri: str) -> bytes:
    parts = urlsplit(uri)
    _require(parts.scheme == "file", uri)
    return Path(unquote(parts.path)).read_bytes()


async def _without_retry(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


class StatusObserver:
    """Reads `job.status`: a job's versions increase by one, and after the end of a run only its enrichments change."""

    def __init__(self, servers: str) -> None:
        self.backward: list[str] = []
        self.missed: list[str] = []
        self.versions: dict[str, int] = {}
        #: The status of each run at its end, without the fields that may change later.
        self._ended: dict[Run, dict[str, Any]] = {}
        self.follower = Follower(servers, ("job.status",), self._receive)

    def _receive(self, record: ConsumerRecord) -> None:
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


class StatusPoller:
    """Two HTTP clients that poll the newest jobs at random workers with a table. `backward` has every answer that was
    older than one which either client had received before its request.
    """

    def __init__(self, urls: Callable[[], list[str]]) -> None:
        self.backward: list[str] = []
        self.wrong: list[str] = []
        self.answers = 0
        #: Seconds between two requests of one client.
        self.pause_s = 0.1
        self._urls = urls
        self._jobs: deque[str] = deque(maxlen=20)
        self._newest: dict[str, tuple[int, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3))
        self._tasks = [asyncio.create_task(self._keep_polling()) for _ in range(2)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._session is not None:
            await self._session.close()

    def follow(self, job: str) -> None:
        """Poll this job from now on."""
        self._jobs.append(job)

    def failure(self) -> BaseException | None:
        """The error that ended it, if it has ended."""
        return next((task.exception() for task in self._tasks if task.done()), None)

    async def compare_all(self, versions: dict[str, int]) -> None:
        """Check that every worker that answers has these versions of the jobs; others are added to `wrong`."""
        for url in self._urls():
            for job, version in list(versions.items()):  # a late status may come while one is polled
                answer = await self._poll(url, job)
                if answer is not None and answer["version"] not in {version, versions[job]}:
                    self.wrong.append(
                        f"{job}: {url} answers {answer['status']} {answer['version']} instead of {version}"
                    )

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(self.pause_s)
            urls = self._urls()
            if urls and self._jobs:
                await self._poll(random.choice(urls), random.choice(self._jobs))

    async def _poll(self, url: str, job: str) -> dict[str, Any] | None:
        assert self._session is not None
        before = self._newest.get(job, (0, ""))
        # As a tenant, which is answered from the table if that is current, or as an operator with the job id only.
        tenant = random.choice(({}, {"tenant": TENANT}))
        try:
            async with self._session.get(f"{url}/jobs/{job}/status", params=tenant) as response:
                answer = await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        if answer is not None:
            self._compare(url, job, answer, *before)
        return answer

    def _compare(self, url: str, job: str, answer: dict[str, Any], before: int, source: str) -> None:
        self.answers += 1
        if answer["version"] < before:
            self.backward.append(
                f"{job}: {url} answers {answer['status']} {answer['version']} after {before} of {source}"
            )
        self._newest[job] = max(self._newest.get(job, (0, "")), (answer["version"], url))


@dataclass
class TopicRecorder:
    """Keeps every record of every topic, by (topic, partition, offset), for the checks at the end."""

    servers: str
    topics: tuple[str, ...]
    records: dict[tuple[str, int, int], ConsumerRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.follower = Follower(self.servers, self.topics, self._receive)

    def _receive(self, record: ConsumerRecord) -> None:
        self.records[record.topic, record.partition, record.offset] = record


class OffsetSampler:
    """Reads the committed offsets of every group once a second, and right after that the inbox.

    The order matters: an event that was handled when its offset was committed is in the inbox that is read later. So
    every violation that is found is real; only events that are handled in the milliseconds between the two reads can
    hide one.
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
        """The error that ended it, if it has ended."""
        return self._task.exception() if self._task is not None and self._task.done() else None

    async def _every_second(self) -> None:
        while True:
            try:
                async with asyncio.timeout(10):
                    await self.sample()
            except OUTAGES:
                await self._close()
            await asyncio.sleep(1)

    async def sample(self) -> dict[tuple[str, str, int], int]:
        """Take one sample; returns the committed offsets by (group, topic, partition)."""
        if self._admin is None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._servers, request_timeout_ms=5000)
            await admin.start()
            self._admin = admin
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn, timeout=5)
        offsets = {}
        for group in self._groups:
            for tp, committed in (await self._admin.list_consumer_group_offsets(group)).items():
                offsets[group, tp.topic, tp.partition] = committed.offset
        rows = await self._connection.fetch("SELECT stage, event_id FROM inbox")
        self.samples += 1
        for key, offset in offsets.items():
            if not self.committed[key] or self.committed[key][-1][1] < offset:
                self.committed[key].append((self.samples, offset))
        for row in rows:
            self.handled.setdefault((row["stage"], str(row["event_id"])), self.samples)
        return offsets

    async def _close(self) -> None:
        admin, self._admin = self._admin, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        if admin is not None:
            with contextlib.suppress(*OUTAGES):
                await asyncio.wait_for(admin.close(), 5)
