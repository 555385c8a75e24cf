"""Replaces the record parser of aiokafka's consumer, so that no bytes in a topic can stop a consumer.

aiokafka's own parser raises in the middle of a batch, for the whole consumer: for a header whose name is not UTF-8, for
bytes after a gzip stream, for an attribute bit that Kafka ignores. Kafka takes all of these from a producer. It also
stores offset deltas within an uncompressed batch unchecked: of two records with the same delta aiokafka drops the
second without a word, and after a record whose delta is a thousand too large a group would commit past records that it
has not read.

Here every record of a batch is returned, whole or with a `Flaw`; `schemas.envelope.decode` refuses the latter, so that
they become dead letters. `install` puts these classes into aiokafka.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar, Protocol

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from agents.runtime.kafka.decompression import DecompressedStream
from agents.runtime.kafka.legacy_messages import MalformedMessage, unpack_messages
from agents.runtime.kafka.record_format import (
    CRC_START,
    HEADER_STRUCT,
    MAX_HEADERS,
    WHOLE_BYTES,
    BatchHeader,
    ParsedRecord,
    RecordBoundaryLost,
    next_record,
    split_batches,
    too_many_headers,
)
from schemas.envelope import Flaw, Headers

log = logging.getLogger(__name__)

#: Records of one batch that are unpacked. A batch of 1 MB can declare millions, each of which would be a dead letter.
MAX_RECORDS = 100_000

#: Bytes of records after which a poll returns.
POLL_BYTES = 1 << 20

#: How often a batch with a wrong checksum is fetched again before it becomes a dead letter.
REFETCHES = 2

_READ_COMMITTED = fetcher.READ_COMMITTED

_SURPLUS = "bytes follow the last record of its batch"


class _FetchAgain(Exception):
    """The rest of the fetched data is dropped, and fetched again."""


class FetchedData:
    """The bytes of one partition in a fetch response; replaces aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes | None) -> None:
        self.data = memoryview(data or b"")

    def has_next(self) -> bool:
        """Whether the data contains a complete batch."""
        return next(split_batches(self.data), None) is not None

    @staticmethod
    def size_in_bytes() -> int:
        """Always 0. aiokafka asks when there is no complete batch, and raises for any other number; but a fetch may cut
        off a batch, and the next fetch then brings it whole.
        """
        return 0


class SkippedBatches(Protocol):
    """Batches that an operator has excluded from unpacking (`concord skip --unread`)."""

    def unread(self, topic: str, partition: int, first: int, last: int) -> str | None:
        """Why the batch with the offsets `first` to `last` must not be unpacked; None if it may be."""


class PartitionRecords:
    """An iterator over the records in the fetched data of one partition; replaces aiokafka's `PartitionRecords`.

    Each is a `ConsumerRecord` of aiokafka's, whose `checksum` is its `Flaw` or None. Offsets are those that Kafka
    assigned, whatever the records of an uncompressed batch declare.
    """

    #: By topic, partition and base offset: how often a batch had a wrong checksum.
    _checksum_failures: ClassVar[Counter[tuple[str, int, int]]] = Counter()

    #: Consulted before a batch is unpacked.
    skipped: ClassVar[SkippedBatches | None] = None

    def __init__(
        self,
        tp: TopicPartition,
        records: FetchedData,
        aborted_transactions: Any,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,
        isolation_level: int,
    ) -> None:
        if key_deserializer or value_deserializer or not check_crcs:
            raise NotImplementedError("values are returned as bytes, with their checksums checked")
        self._tp = tp
        self._data = records.data
        self._committed_only = isolation_level == _READ_COMMITTED
        self._aborted = sorted(aborted_transactions or (), key=lambda aborted: aborted[1])
        self._aborted_producers: set[int] = set()
        self.next_fetch_offset = fetch_offset
        self._records = self._unpack()

    def __iter__(self) -> PartitionRecords:
        return self

    def __next__(self) -> ConsumerRecord:
        return next(self._records)

    def _unpack(self) -> Iterator[ConsumerRecord]:
        for raw in split_batches(self._data):
            try:
                yield from self._batch(raw)
            except _FetchAgain:
                return
            except Exception as exc:
                log.exception("a batch of %s/%d cannot be unpacked", *self._tp)
                last = max(self.next_fetch_offset, int.from_bytes(raw[:8], "big", signed=True))
                yield self._unread(raw, last, last, f"internal error: {type(exc).__name__}")

    def _batch(self, raw: memoryview) -> Iterator[ConsumerRecord]:
        base, length = struct.unpack_from(">qi", raw)
        offset = max(base, self.next_fetch_offset)
        if len(raw) != 12 + length:
            yield self._unread(raw, offset, offset, f"the length field of the batch is impossible: {length}")
        elif raw[16] < 2:
            yield from self._legacy(raw)
        elif raw[16] > 2 or len(raw) < HEADER_STRUCT.size:
            yield self._unread(raw, offset, offset, f"the batch has an unknown format ({raw[16]}), or is too short")
        else:
            yield from self._current(BatchHeader(*HEADER_STRUCT.unpack_from(raw)), raw)

    def _current(self, header: BatchHeader, raw: memoryview) -> Iterator[ConsumerRecord]:
        """The records of a batch of magic 2, which every broker since 0.11 writes."""
        last = header.last_offset
        if header.base_offset <= last < self.next_fetch_offset:
            return  # all of it has been read
        topic, partition = self._tp
        skip_reason = self.skipped.unread(topic, partition, header.base_offset, last) if self.skipped else None
        if skip_reason is not None:
            yield self._unread(raw, header.base_offset, max(last, header.base_offset), skip_reason)
        elif calc_crc32c(raw[CRC_START:]) != header.crc:
            self._count_checksum_failure(header.base_offset)
            offset = max(header.base_offset, self.next_fetch_offset)
            last = last if header.dense and last >= offset else offset
            yield self._unread(raw, header.base_offset, last, "the checksum of the batch is wrong")
        elif self._is_invisible(header):
            self.next_fetch_offset = max(self.next_fetch_offset, last + 1)
        elif not header.is_consistent(len(raw)):
            offset = max(last, self.next_fetch_offset)
            reason = f"the batch declares {header.record_count} records up to offset delta {header.last_offset_delta}"
            yield self._unread(raw, header.base_offset, offset, reason)
        else:
            yield from self._readable(header, raw)
            self.next_fetch_offset = max(self.next_fetch_offset, last + 1)

    def _count_checksum_failure(self, base_offset: int) -> None:
        """Raises _FetchAgain the first times: a bit may have changed on the network, and records that Kafka stores
        intact must not become dead letters for that.
        """
        batch = (*self._tp, base_offset)
        self._checksum_failures[batch] += 1
        if self._checksum_failures[batch] <= REFETCHES:
            log.warning("a batch of %s/%d at %d has a wrong checksum; it is fetched again", *batch)
            raise _FetchAgain
        del self._checksum_failures[batch]

    def _is_invisible(self, header: BatchHeader) -> bool:
        """Whether no reader gets the batch: it is a transaction marker, or part of an aborted transaction."""
        if self._committed_only:
            while self._aborted and self._aborted[0][1] <= header.base_offset:
                self._aborted_producers.add(self._aborted.pop(0)[0])
            if header.control:
                self._aborted_producers.discard(header.producer_id)
        return header.control or (header.transactional and header.producer_id in self._aborted_producers)

    def _readable(self, header: BatchHeader, raw: memoryview) -> Iterator[ConsumerRecord]:
        stream = DecompressedStream(raw[HEADER_STRUCT.size :], header.codec)
        if header.codec:
            data = stream.read(WHOLE_BYTES + 1)
            records = _parsed_at_once(header, header.uncompressed(raw) + data) if stream.error is None else None
            stream.put_back(data)
        else:
            records = _parsed_at_once(header, bytes(raw))
        if records is None:
            yield from self._one_by_one(header, raw, stream)
            return
        for offset, record in records:
            if offset >= self.next_fetch_offset:
                headers, flaw = tuple(record.headers), None
                if len(headers) > MAX_HEADERS:
                    headers, flaw = headers[:MAX_HEADERS], too_many_headers(len(headers))
                timestamp = record.timestamp, record.timestamp_type
                yield self._record(offset, timestamp, record.key, record.value, headers, flaw)

    def _one_by_one(self, header: BatchHeader, raw: memoryview, stream: DecompressedStream) -> Iterator[ConsumerRecord]:
        """The records of a batch that is large, or that breaks the format somewhere."""
        offset = header.base_offset - 1
        try:
            for offset, record in _assigned_records(header, stream):
                if self.next_fetch_offset <= offset <= header.last_offset:
                    timestamp = header.record_time(record.timestamp_delta)
                    yield self._record(offset, timestamp, record.key, record.value, record.headers, record.flaw)
        except RecordBoundaryLost as lost:
            yield self._unread(raw, offset + 1, header.last_offset, str(lost))

    def _legacy(self, raw: memoryview) -> Iterator[ConsumerRecord]:
        """The records of a message of magic 0 or 1, which may contain others, compressed."""
        (last,) = struct.unpack_from(">q", raw)
        if last < self.next_fetch_offset:
            return
        try:
            messages = unpack_messages(raw)
        except (MalformedMessage, struct.error) as exc:
            yield self._unread(raw, last, last, f"a message of format v0 or v1 is malformed: {exc}")
            return
        previous = -1
        for message in messages:
            offset = message.offset if previous < message.offset <= last else previous + 1
            previous = offset
            if self.next_fetch_offset <= offset <= last:
                yield self._record(offset, message.timestamp, message.key, message.value, (), None)
        self.next_fetch_offset = max(self.next_fetch_offset, last + 1)

    def _unread(self, raw: memoryview, first: int, last: int, reason: str) -> ConsumerRecord:
        """One record in place of all with the offsets `first` to `last`; its value is the bytes of their batch. Its
        offset is the last one: the offset committed after it then follows them all.
        """
        value = bytes(raw[:WHOLE_BYTES])
        whole = (len(raw), hashlib.sha256(raw).hexdigest()) if len(raw) > len(value) else None
        offsets = (first, last) if first < last else None
        flaw = Flaw(f"{reason}. The value is the batch as Kafka stores it", whole, offsets, "batch")
        is_current = len(raw) >= HEADER_STRUCT.size and raw[16] == 2
        timestamp = struct.unpack_from(">q", raw, 35)[0] if is_current else -1
        return self._record(last, (timestamp, 0), None, value, (), flaw)

    def _record(
        self,
        offset: int,
        timestamp: tuple[int | None, int | None],
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        flaw: Flaw | None,
    ) -> ConsumerRecord:
        self.next_fetch_offset = offset + 1
        sizes = -1 if key is None else len(key), -1 if value is None else len(value)
        return ConsumerRecord(*self._tp, offset, *timestamp, key, value, flaw, *sizes, headers)


class FetchResult(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's `FetchResult`, which limits the bytes of a poll as well as its records."""

    _partition_records: PartitionRecords | None

    def getall(self, max_records: int | None = None) -> list[ConsumerRecord]:
        """The next records: `max_records` at most, and no more once they have `POLL_BYTES` bytes."""
        unpacked = self._partition_records
        if not self.check_assignment(self._topic_partition) or unpacked is None:
            return []
        records, size = [], 0
        for record in unpacked:
            records.append(record)
            size += len(record.key or b"") + len(record.value or b"")
            if len(records) == max_records or size >= POLL_BYTES:
                self._update_position()
                return records
        self._update_position()
        self._partition_records = None
        return records


def install() -> None:
    """Replace the parser of every aiokafka consumer in this process: aiokafka has no setting for one consumer."""
    fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = FetchedData, PartitionRecords, FetchResult


def _assigned_records(header: BatchHeader, stream: DecompressedStream) -> Iterator[tuple[int, ParsedRecord]]:
    """The records of a batch with their offsets.

    Raises:
        RecordBoundaryLost: with the reason, where no further record of the batch can be read, or none is to be read.
    """
    offset = header.base_offset - 1
    for index in range(header.record_count):
        if index == MAX_RECORDS:
            raise RecordBoundaryLost(f"the batch has {header.record_count} records")
        try:
            record = next_record(stream)
        except RecordBoundaryLost as lost:
            reason = f"record {index + 1} of {header.record_count} in its batch: {stream.error or lost}"
            raise RecordBoundaryLost(reason) from lost
        offset = _assigned_offset(header, record.offset_delta, index, offset + 1)
        surplus = index == header.record_count - 1 and bool(stream.read_some(1))
        yield offset, record.with_flaw(_SURPLUS) if surplus and offset == header.last_offset else record
        if surplus and offset < header.last_offset:
            raise RecordBoundaryLost(_SURPLUS)


def _assigned_offset(header: BatchHeader, delta: int, index: int, expected: int) -> int:
    """The offset of the record at `index`, which declares this delta: at least `expected`, in order with the others."""
    declared = header.base_offset + delta
    remaining = header.record_count - 1 - index  # each of them has an offset, too
    in_order = expected <= declared <= header.last_offset - remaining
    return declared if not header.dense and in_order else expected


def _parsed_at_once(header: BatchHeader, batch: bytes) -> list[tuple[int, Any]] | None:
    """The records with their offsets, by aiokafka's compiled parser; None if the batch breaks the format in any way, or
    is too large for it.
    """
    if len(batch) > WHOLE_BYTES + HEADER_STRUCT.size or header.record_count > MAX_RECORDS:
        return None
    try:
        records = list(DefaultRecordBatch(batch))
    except Exception:  # noqa: BLE001 - whatever it is, the parser in record_format finds it
        return None
    offsets = [record.offset for record in records]
    if header.dense:
        in_order = offsets == list(range(header.base_offset, header.last_offset + 1))
    else:
        bounds = [header.base_offset - 1, *offsets, header.last_offset + 1]
        in_order = all(before < after for before, after in pairwise(bounds))
    return list(zip(offsets, records, strict=True)) if in_order and len(records) == header.record_count else None
