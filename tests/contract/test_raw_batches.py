"""Malformed batches that a real Kafka accepts: our consumer reads each record once, with its flaw if any."""

from __future__ import annotations

import asyncio
import gzip
import os
import time

import lz4.frame
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from backports import zstd

from agents.runtime.kafka.client import Kafka, consumer, record_of
from tests.batches import GZIP, LZ4, SNAPPY, ZSTD, Batch, Rec, Wire, sized, varint, xerial

NOISE = os.urandom(60)
ONE = Rec(NOISE).encode(0)

#: Kafka takes these; whether what is read has a flaw.
TAKEN: dict[str, tuple[Batch, bool]] = {
    "plain": (Batch((Rec(NOISE),)), False),
    "gzip": (Batch((Rec(NOISE),), GZIP), False),
    "snappy": (Batch((Rec(NOISE),), SNAPPY), False),
    "snappy as Java frames it": (Batch((Rec(NOISE),), SNAPPY, compressed=xerial(ONE)), False),
    "lz4": (Batch((Rec(NOISE),), LZ4), False),
    "zstd": (Batch((Rec(NOISE),), ZSTD), False),
    "zstd with a wide window": (
        Batch((Rec(NOISE),), ZSTD, compressed=zstd.compress(ONE, options={zstd.CompressionParameter.window_log: 27})),
        False,
    ),
    "bytes after gzip": (Batch((Rec(NOISE),), GZIP, compressed=gzip.compress(ONE) + b"garbage!"), False),
    "bytes after lz4": (
        Batch((Rec(NOISE),), LZ4, compressed=lz4.frame.compress(ONE, block_linked=False) + b"garbage!"),
        False,
    ),
    "lz4 with a wrong checksum of its content": (
        Batch(
            (Rec(NOISE),),
            LZ4,
            compressed=lz4.frame.compress(ONE, block_linked=False, content_checksum=True)[:-4] + b"abcd",
        ),
        True,
    ),
    "two gzip members": (Batch((Rec(NOISE),), GZIP, compressed=gzip.compress(ONE[:9]) + gzip.compress(ONE[9:])), False),
    "header that is not UTF-8": (Batch((Rec(NOISE, headers=((b"h\xff\xfe", b"x"),)),)), True),
    "header that is not UTF-8, gzip": (Batch((Rec(NOISE, headers=((b"h\xff\xfe", b"x"),)),), GZIP), True),
    "60,000 headers": (Batch((Rec(NOISE, headers=((b"", b""),) * 60_000),)), True),
    "offset a thousand further": (Batch((Rec(NOISE, delta=1000),)), False),
    "offset before": (Batch((Rec(NOISE, delta=-5),)), False),
    "attributes of the record": (
        Batch((Rec(body=b"\xff" + varint(0) + varint(0) + sized(None) + sized(NOISE) + varint(0)),)),
        False,
    ),
    "unused attributes of the batch": (Batch((Rec(NOISE),), attributes=0x7FC0), False),
    "long before its time": (Batch((Rec(NOISE),), timestamp=-9_000_000_000_000_000_000), False),
    "without a time": (Batch((Rec(NOISE),), timestamp=-1), False),
}

#: Kafka itself says no. Should another broker not, tests/unit/test_record_batches.py says what comes of them.
REFUSED = {
    "codec 5": Batch(attributes=5),
    "no gzip": Batch(codec=GZIP, compressed=b"garbage"),
    "more than declared": Batch((Rec(), Rec()), count=1, last_delta=0),
    "a record that is cut off": Batch((Rec(length=2**30),)),
    "end of a transaction": Batch(attributes=0x20),
    "wrong checksum": Batch(crc=1),
    "magic 3": Batch(magic=3),
}


async def test_what_kafka_takes_is_read(kafka):
    topic = f"hand-made-{time.time_ns()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    async with Wire(kafka, topic) as wire:
        taken = {await wire.produce(batch): name for name, (batch, _) in TAKEN.items()}
        refused = [name for name, batch in REFUSED.items() if await wire.produce(batch) is not None]
        end = await wire.produce(Batch((Rec(b"a"), Rec(b"b", delta=0), Rec(b"end", delta=9))))
    assert None not in taken, f"Kafka refuses {taken[None]}"
    assert refused == []

    reader = consumer(Kafka(kafka))
    await reader.start()
    try:
        reader.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(20):
            records = [record_of(await reader.getone()) for _ in range(len(TAKEN) + 3)]
        assert await reader.position(TopicPartition(topic, 0)) == end + 3
    finally:
        await reader.stop()

    assert [record.offset for record in records] == list(range(len(TAKEN) + 3))
    assert [record.value for record in records[-3:]] == [b"a", b"b", b"end"]
    for record in records[:-3]:
        name = taken[record.offset]
        assert (record.flaw is not None) == TAKEN[name][1], (name, record.flaw)
        assert NOISE in (record.value or b""), name
