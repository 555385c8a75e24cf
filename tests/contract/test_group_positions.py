"""The sweeper's query to Kafka: whether consumer groups have passed the records of their topics."""

from __future__ import annotations

from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.runtime.kafka.client import Kafka, consumer, producer
from agents.runtime.kafka.group_positions import GroupPositions


async def test_a_group_has_passed_what_it_has_committed_markers_of_transactions_left_out(kafka):
    where, topic, group = Kafka(kafka), f"positions-{uuid4().hex}", f"group-{uuid4().hex}"
    admin = AIOKafkaAdminClient(**where.client())
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    sender = producer(where, transactional_id=uuid4().hex)
    await sender.start()
    async with sender.transaction():
        await sender.send_and_wait(topic, b"one", partition=0)
    positions = GroupPositions(where)
    ends = await positions.ends([topic, "no-such-topic"])
    unread = await positions.passed({group: [topic]}, ends)
    reader = consumer(where, topic, group_id=group)
    await reader.start()
    await reader.getone()
    await reader.commit()
    await reader.stop()
    read = await positions.passed({group: [topic]}, ends)
    async with sender.transaction():
        await sender.send_and_wait(topic, b"two", partition=0)
    later = await positions.ends([topic])
    await sender.stop()
    await admin.close()

    assert (unread, read) == (False, True)
    assert not await positions.passed({group: [topic]}, later)
    assert await positions.passed({group: [topic]}, ends)
