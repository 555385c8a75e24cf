"""Builds Kafka record batches byte by byte, valid and malformed, and produces them unchanged.

Format: Kafka's `DefaultRecordBatch` (magic 2), and the message sets of magic 0 and 1.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
import zlib
from dataclasses import dataclass

import cramjam
import lz4.frame
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c
from backports import zstd

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
XERIAL = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)


def varint(number: int) -> bytes:
    """Zigzag, seven bits a byte."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(0x80 | (number & 0x7F))
        number >>= 7
    return bytes([*out, number])


def sized(data: bytes | None) -> bytes:
    """A length and the bytes; None is the length -1."""
    return varint(-1) if data is None else varint(len(data)) + data


@dataclass(frozen=True)
class Rec:
    """One record; `body` replaces everything after its length, `length` its true length."""

    value: bytes | None = b"v"
    key: bytes | None = None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()
    delta: int | None = None
    body: bytes | None = None
    length: int | None = None
    tail: bytes = b""
    header_count: int | None = None

    def encode(self, index: int) -> bytes:
        body = self.body
        if body is None:
            delta = index if self.delta is None else self.delta
            count = len(self.headers) if self.header_count is None else self.header_count
            body = b"\0" + varint(0) + varint(delta) + sized(self.key) + sized(self.value) + varint(count)
            body += b"".join(sized(name) + sized(value) for name, value in self.headers) + self.tail
        return varint(len(body) if self.length is None else self.length) + body


@dataclass(frozen=True)
class Batch:
    """A batch of magic 2; what is given replaces what would be right."""

    records: tuple[Rec, ...] = (Rec(),)
    codec: int = 0
    base: int = 0
    payload: bytes | None = None
    compressed: bytes | None = None
    count: int | None = None
    last_delta: int | None = None
    attributes: int = 0
    magic: int = 2
    crc: int | None = None
    producer: int = -1
    timestamp: int = 1_700_000_000_000

    def encode(self) -> bytes:
        payload = self.payload
        if payload is None:
            payload = b"".join(record.encode(index) for index, record in enumerate(self.records))
        payload = compressed(payload, self.codec) if self.compressed is None else self.compressed
        count = len(self.records) if self.count is None else self.count
        last = len(self.records) - 1 if self.last_delta is None else self.last_delta
        checked = struct.pack(
            ">hiqqqhii", self.attributes | self.codec, last, self.timestamp, self.timestamp, self.producer, -1, -1,
            count,
        )  # fmt: skip
        checked += payload
        crc = calc_crc32c(checked) if self.crc is None else self.crc
        head = struct.pack(">ibI", -1, self.magic, crc)
        return struct.pack(">qi", self.base, len(head) + len(checked)) + head + checked


def compressed(data: bytes, codec: int) -> bytes:
    """As producers do it; snappy raw, as librdkafka does it."""
    match codec:
        case 1:
            return gzip.compress(data, mtime=0)
        case 2:
            return bytes(cramjam.snappy.compress_raw(data))
        case 3:
            return lz4.frame.compress(data, block_linked=False)
        case 4:
            return zstd.compress(data)
        case _:
            return data


def xerial(data: bytes, block: int = 32_768) -> bytes:
    """Snappy as Java producers frame it."""
    blocks = (bytes(cramjam.snappy.compress_raw(data[at : at + block])) for at in range(0, len(data), block))
    return XERIAL + b"".join(struct.pack(">i", len(one)) + one for one in blocks)


def legacy(
    value: bytes | None,
    key: bytes | None = None,
    *,
    magic: int = 1,
    offset: int = 0,
    codec: int = 0,
    when: int = 7,
) -> bytes:
    """One message of magic 0 or 1; with a codec, `value` is the (compressed) message set in it."""

    def sized32(data: bytes | None) -> bytes:
        return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data

    checked = struct.pack(">bb", magic, codec) + (struct.pack(">q", when) if magic else b"")
    checked += sized32(key) + sized32(value)
    message = struct.pack(">I", zlib.crc32(checked)) + checked
    return struct.pack(">qi", offset, len(message)) + message


class Wire:
    """A topic's partition 0, to which bytes are produced as they are."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._client = AIOKafkaClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> Wire:
        await self._client.bootstrap()
        await self._client.set_topics([self._topic])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def produce(self, batch: Batch | bytes) -> int | None:
        """The offset that Kafka gave to the batch's first record; None if it refused the batch."""
        raw = batch.encode() if isinstance(batch, Batch) else batch
        again = {kafka_errors.NotLeaderForPartitionError, kafka_errors.UnknownTopicOrPartitionError}
        for _ in range(50):
            node = self._client.cluster.leader_for_partition(TopicPartition(self._topic, 0))
            answer = await self._client.send(node, ProduceRequest(None, -1, 10_000, [(self._topic, [(0, raw)])]))
            _, code, offset, *_ = answer.topics[0][1][0]
            if kafka_errors.for_code(code) not in again:  # the topic is new
                return None if code else offset
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self._topic} has no leader")
