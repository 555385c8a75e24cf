"""Committed offsets are moved back to a time, and only of the groups in question."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.commands.operations.rewind import groups, rewind
from agents.runtime.kafka.client import Kafka, consumer, producer
from agents.stages import registry
from schemas import topics


async def test_what_came_since_a_time_is_read_again(kafka):
    where, topic, group = Kafka(kafka), f"rewind-{uuid4().hex}", f"group-{uuid4().hex}"
    admin = AIOKafkaAdminClient(**where.client())
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    sender = producer(where)
    await sender.start()
    await sender.send_and_wait(topic, b"before")
    await asyncio.sleep(0.05)
    since = datetime.now(UTC)
    for value in (b"after", b"later"):
        await sender.send_and_wait(topic, value)
    await sender.stop()

    async def read(count: int) -> list[bytes]:
        reader = consumer(where, topic, group_id=group)
        await reader.start()
        values = [(await asyncio.wait_for(reader.getone(), 20)).value for _ in range(count)]
        await reader.commit()
        await reader.stop()
        return values

    assert await read(3) == [b"before", b"after", b"later"]
    assert await rewind(where, group, [topic], since, dry_run=True) == 2
    assert await rewind(where, group, [topic], since) == 2
    assert await rewind(where, group, [topic], datetime.now(UTC)) == 0
    assert await read(2) == [b"after", b"later"]


def test_every_stage_reads_again():
    """A topic that stages read and that is left out would not be read again."""
    read = {name for names in groups(("a",)).values() for name in names}

    unread = {
        topics.FAILED.name,
        *(topic.name for spec in registry.STAGES if spec.enrichment for topic in spec.publishes),
    }
    assert read == {topic.name for topic in registry.all_topics(("a",))} - (unread - registry.read_by(("a",)).keys())
