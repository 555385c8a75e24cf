"""Reads dead letter topics, and finds out which job a dead letter is about."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition

from agents.commands import reach
from agents.runtime.kafka import client as clients
from schemas import topics
from schemas.envelope import Record, decode
from schemas.errors import MalformedEvent, NotFound
from schemas.events.audio import AudioUploaded
from schemas.events.base import Event
from schemas.events.conversation import ConversationRequested
from schemas.jobs.outcome import id_of_upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents.runtime.kafka.client import Kafka
    from schemas.ids import Key

#: The suffix of dead letter topics.
SUFFIX = ".dlq"

#: Seconds without a record after which a partition counts as read, should its end never be reached.
QUIET_S = 5.0


def source_topic(letter: Record) -> str:
    """The topic whose record was given up."""
    return letter.header("dlq-topic") or letter.topic.removesuffix(SUFFIX)


def source_record(letter: Record) -> Record:
    """The record that was given up, at its original position."""
    headers = tuple((name, value) for name, value in letter.headers if not name.startswith("dlq-"))
    numbers = [int(letter.header(f"dlq-{name}") or 0) for name in ("partition", "offset", "timestamp")]
    return Record(source_topic(letter), numbers[0], numbers[1], letter.key, letter.value, headers, numbers[2])


def job_key_of(letter: Record) -> Key | None:
    """Tenant and id of the job that a dead letter is about, from its headers or else its value; None if neither has
    them.
    """
    tenant, job = letter.header("dlq-tenant-id"), letter.header("dlq-job-id")
    if tenant and job:
        return tenant, job
    return _key_of_upload(letter) if source_topic(letter) == topics.UPLOADED.name else _key_of_event(letter)


def job_id_of(letter: Record) -> str:
    """The id of the job that a dead letter is about, or else the record's key, which mostly is that; may be empty."""
    key = job_key_of(letter)
    if key is not None or source_topic(letter) in topics.INGRESS:
        return key[1] if key else ""
    return (letter.key or b"").decode("utf-8", "replace")


def _key_of_upload(letter: Record) -> Key | None:
    with contextlib.suppress(MalformedEvent, ValueError):
        ingress = {topic.name: topic for topic in (topics.UPLOADED, topics.CONVERSATION)}
        envelope = decode(source_record(letter), ingress)
        match envelope.data:
            case AudioUploaded() as upload:
                return upload.tenant_id, id_of_upload(upload, envelope.root)
            case ConversationRequested() as request:
                return request.tenant_id, request.job_id
    return None


def _key_of_event(letter: Record) -> Key | None:
    with contextlib.suppress(ValueError):
        event = Event.model_validate_json(letter.value or b"")
        return event.tenant_id, event.job_id
    return None


class DeadLetterTopics:
    """All dead letter topics of a Kafka, read without a consumer group, so that reading changes nothing.

    Records that are written after `open_dead_letters` are not seen.
    """

    def __init__(self, consumer: Any, bounds: dict[TopicPartition, tuple[int, int]]) -> None:
        """`bounds` are the first offset of each partition, and the one after its last."""
        self._consumer = consumer
        self._bounds = bounds

    @property
    def names(self) -> list[str]:
        """The names of all dead letter topics."""
        return sorted({partition.topic for partition in self._bounds})

    def resolve(self, topic: str) -> str:
        """The dead letter topic of a topic, which may be named with or without `.dlq`.

        Raises:
            NotFound: there is no such topic; the message lists those that there are.
        """
        name = topic if topic.endswith(SUFFIX) else topic + SUFFIX
        if name not in self.names:
            existing = ", ".join(self.names) or "none (did a worker ever run?)"
            raise NotFound(f"there is no topic {name}; there are {existing}")
        return name

    async def at(self, topic: str, partition: int, offset: int) -> Record:
        """One dead letter. Raises NotFound."""
        tp = TopicPartition(topic, partition)
        begin, end = self._bounds.get(tp, (0, 0))
        records = await self._read(tp, offset, offset + 1) if begin <= offset < end else []
        if records:
            return records[0]
        raise NotFound(
            f"{topic} has no dead letter {offset} in partition {partition}; see `concord dlq list --topic {topic}`"
        )

    async def newest(self, topic: str, limit: int) -> list[Record]:
        """The newest dead letters of a topic, at most `limit`, oldest first."""
        records = [record for tp in self._partitions(topic) for record in await self._newest_of(tp, limit)]
        return sorted(records, key=lambda record: (record.timestamp_ms, record.partition, record.offset))[-limit:]

    async def everything(self, topic: str) -> list[Record]:
        """All dead letters of a topic."""
        return [record for tp in self._partitions(topic) for record in await self._read(tp, *self._bounds[tp])]

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return sorted(tp for tp in self._bounds if tp.topic == topic)

    async def _newest_of(self, tp: TopicPartition, limit: int) -> list[Record]:
        """Read growing windows from the end: some offsets belong to transaction markers, and have no record."""
        begin, end = self._bounds[tp]
        records: list[Record] = []
        span = 2 * limit + 10
        while end > begin and len(records) < limit:
            start = max(begin, end - span)
            records = await self._read(tp, start, end) + records
            end, span = start, 2 * span
        return records[-limit:]

    async def _read(self, tp: TopicPartition, start: int, end: int) -> list[Record]:
        """The records from offset `start` to before `end`."""
        if start >= end:
            return []
        self._consumer.assign([tp])
        self._consumer.seek(tp, start)
        records: list[Record] = []
        received_at = time.monotonic()
        while await self._consumer.position(tp) < end and time.monotonic() - received_at < QUIET_S:
            # Short timeouts: where a transaction was aborted, the position advances without a record.
            batch = await self._consumer.getmany(tp, timeout_ms=200, max_records=500)
            received_at = time.monotonic() if batch else received_at
            records += [clients.record_of(raw) for raw in batch.get(tp, ())]
        return [record for record in records if record.offset < end]


@contextlib.asynccontextmanager
async def open_dead_letters(where: Kafka) -> AsyncIterator[DeadLetterTopics]:
    """The dead letter topics of a Kafka as they are now. Raises Unavailable when it does not answer."""
    by_topic = (await reach.partitions(where)).items()
    partitions = [TopicPartition(name, n) for name, numbers in by_topic if name.endswith(SUFFIX) for n in numbers]
    async with reach.started(where, clients.consumer(where)) as consumer:
        # Queried before the first read: behind a waiting fetch, each answer would take a second.
        begin = await consumer.beginning_offsets(partitions) if partitions else {}
        end = await consumer.end_offsets(partitions) if partitions else {}
        yield DeadLetterTopics(consumer, {tp: (begin[tp], end[tp]) for tp in partitions})
