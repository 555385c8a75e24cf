"""What Kafka and Python allow: consumers that pass records on through as many topics, one process, no guarantee at
all.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.runtime.kafka.client import Kafka

#: audio.uploaded, two asr.requests, two asr.results, reconciled, persisted: a recording's way is five hops long.
HOPS = 5


async def relay(kafka: Kafka, count: int) -> tuple[float, float]:
    """(records a second through all hops, median latency in seconds of single records)."""
    names = [f"bare-{uuid.uuid4().hex[:6]}-{n}" for n in range(HOPS + 1)]
    await _create(kafka, names)
    producer = aiokafka.AIOKafkaProducer(**kafka.client(), linger_ms=1)
    await producer.start()
    consumers = [aiokafka.AIOKafkaConsumer(name, **kafka.client(), auto_offset_reset="earliest") for name in names]
    for consumer in consumers:
        await consumer.start()
    pumps = [asyncio.create_task(_pump(c, producer, to)) for c, to in zip(consumers, names[1:], strict=False)]
    try:
        latencies = [await _through(producer, consumers[-1], names[0], 1) for _ in range(50)]
        seconds = await _through(producer, consumers[-1], names[0], count)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*(c.stop() for c in consumers), producer.stop())
    return count / seconds, sorted(latencies)[len(latencies) // 2]


async def _create(kafka: Kafka, names: list[str]) -> None:
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    await admin.create_topics([NewTopic(name, kafka.partitions, 1) for name in names])
    await admin.close()


async def _pump(consumer: Any, producer: Any, to: str) -> None:
    async for record in consumer:
        await producer.send(to, record.value, record.key)


async def _through(producer: Any, last: Any, first: str, count: int) -> float:
    began = time.perf_counter()
    for number in range(count):
        await producer.send(first, b"x" * 300, str(number).encode())
    for _ in range(count):
        await last.getone()
    return time.perf_counter() - began
