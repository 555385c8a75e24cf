"""Kafka's record batches as strangers made them: every record comes out, whole or with its flaw, and nothing is raised.

aiokafka's own parser raises in the middle of a batch, for the whole consumer: for a header whose name is not UTF-8, for
bytes after a gzip stream, for an attribute bit that Kafka ignores. Kafka takes all of these from a producer. It also
takes offsets within an uncompressed batch as they come: two records with the same one, of which aiokafka passes over
the second without a word, and a record that says it is a thousand further on, by which a group would commit past what
it has not read.

What cannot be read becomes a record with a `Flaw`, which `schemas.envelope.decode` refuses, so that it ends in the dead
letters. `install` puts this into aiokafka.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Protocol

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from agents.runtime.kafka.decompression import Decoded
from schemas.envelope import MAX_VALUE_BYTES, Flaw, Headers

log = logging.getLogger(__name__)

#: Bytes of records up to which a batch is unpacked at once, by aiokafka's compiled parser; a larger one comes out
#: record by record. Also the largest record that comes out whole: no topic of ours takes a larger one.
WHOLE_BYTES = 4 << 20

#: Records of one batch that come out. A batch of 1 MB can declare millions, each of which would be a dead letter.
MAX_RECORDS = 100_000

#: Headers of one record, and bytes in them, that come out.
MAX_HEADERS, MAX_HEADER_BYTES = 500, 512 << 10

#: Bytes of records after which a consumer is given what there is.
POLL_BYTES = 1 << 20

#: How often a batch with a wrong checksum is fetched again before it is given up.
REFETCHES = 2

_READ_COMMITTED = fetcher.READ_COMMITTED


class _Header(NamedTuple):
    """The header of a batch of magic 2."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def codec(self) -> int:
        return self.attributes & 0x07

    @property
    def appended(self) -> bool:
        """Whether all records have the time at which Kafka took the batch."""
        return bool(self.attributes & 0x08)

    @property
    def transactional(self) -> bool:
        return bool(self.attributes & 0x10)

    @property
    def control(self) -> bool:
        return bool(self.attributes & 0x20)

    def possible(self, length: int) -> bool:
        """Whether a batch of this length can hold what it says. Compaction may have left it without a record."""
        if self.record_count == 0:
            return self.last_offset_delta >= 0 and length == _HEADER.size
        return 0 < self.record_count <= self.last_offset_delta + 1

    @property
    def dense(self) -> bool:
        """Whether no record is missing, as after compaction: then the place of a record in the batch is its offset."""
        return self.record_count == self.last_offset_delta + 1


_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC_FROM = 21
_ATTRIBUTES = slice(21, 23)
#: The smallest that can follow a batch's length: a message of magic 0 without key and value.
_LEAST = 14


class Fetched:
    """The bytes that Kafka sent of one partition; in place of aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes | None) -> None:
        self.data = memoryview(data or b"")

    def has_next(self) -> bool:
        """Whether there is a batch."""
        return next(split(self.data), None) is not None

    @staticmethod
    def size_in_bytes() -> int:
        """Never more than 0. It is asked for when there is no whole batch, and aiokafka would raise: a fetch may cut
        off a batch, which the next one brings whole.
        """
        return 0


def split(data: memoryview) -> Iterator[memoryview]:
    """The batches in what Kafka sent. The last may be cut off, and is left out; after a length that cannot be one, the
    rest is one batch.
    """
    while len(data) >= 12:
        end = 12 + int.from_bytes(data[8:12], "big", signed=True)
        if end < 12 + _LEAST:
            end = len(data)
        if end > len(data):
            return
        yield data[:end]
        data = data[end:]


class Avoid(Protocol):
    """What an operator does not want unpacked, whatever comes of it."""

    def unread(self, topic: str, partition: int, first: int, last: int) -> str | None:
        """Why the batch of these offsets is to be left alone, if it is."""


class Records:
    """The records in what was fetched of one partition; in place of aiokafka's `PartitionRecords`.

    Each is a `ConsumerRecord` of aiokafka's, whose `checksum` is its `Flaw` or None.
    """

    #: Batches whose checksum was wrong, and how often.
    _distrusted: ClassVar[Counter[tuple[str, int, int]]] = Counter()

    avoid: ClassVar[Avoid | None] = None

    def __init__(
        self,
        tp: TopicPartition,
        records: Fetched,
        aborted_transactions: Any,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,
        isolation_level: int,
    ) -> None:
        if key_deserializer or value_deserializer or not check_crcs:
            raise NotImplementedError("values come as they are, with their checksums checked")
        self._tp = tp
        self._data = records.data
        self._committed_only = isolation_level == _READ_COMMITTED
        self._aborted = sorted(aborted_transactions or (), key=lambda aborted: aborted[1])
        self._aborted_producers: set[int] = set()
        self.next_fetch_offset = fetch_offset
        self._records = self._unpack()

    def __iter__(self) -> Records:
        return self

    def __next__(self) -> ConsumerRecord:
        return next(self._records)

    def _unpack(self) -> Iterator[ConsumerRecord]:
        for raw in split(self._data):
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
        here = max(base, self.next_fetch_offset)
        if len(raw) != 12 + length:
            yield self._unread(raw, here, here, f"a batch cannot have a length of {length}")
        elif raw[16] < 2:
            yield from self._legacy(raw)
        elif raw[16] > 2 or len(raw) < _HEADER.size:
            yield self._unread(raw, here, here, f"a batch of an unknown format ({raw[16]}), or too short")
        else:
            yield from self._current(_Header(*_HEADER.unpack_from(raw)), raw)

    def _current(self, header: _Header, raw: memoryview) -> Iterator[ConsumerRecord]:
        """The records of a batch of magic 2, which every broker since 0.11 writes."""
        last = header.last_offset
        if header.base_offset <= last < self.next_fetch_offset:
            return  # all of it has been read
        place = self._tp.topic, self._tp.partition
        reason = self.avoid.unread(*place, header.base_offset, last) if self.avoid else None
        if reason is not None:
            yield self._unread(raw, header.base_offset, max(last, header.base_offset), reason)
        elif calc_crc32c(raw[_CRC_FROM:]) != header.crc:
            self._distrust(header.base_offset)
            here = max(header.base_offset, self.next_fetch_offset)
            last = last if header.dense and last >= here else here
            yield self._unread(raw, header.base_offset, last, "the batch does not have the checksum that it says")
        elif self._for_nobody(header):
            self.next_fetch_offset = max(self.next_fetch_offset, last + 1)
        elif not header.possible(len(raw)):
            here = max(last, self.next_fetch_offset)
            reason = f"the batch says that it holds {header.record_count} records up to {header.last_offset_delta}"
            yield self._unread(raw, header.base_offset, here, reason)
        else:
            yield from self._readable(header, raw)
            self.next_fetch_offset = max(self.next_fetch_offset, last + 1)

    def _distrust(self, base_offset: int) -> None:
        """Raises _FetchAgain the first times: a bit may have changed on the way here, and records that Kafka has whole
        must not be given up for that.
        """
        place = (*self._tp, base_offset)
        self._distrusted[place] += 1
        if self._distrusted[place] <= REFETCHES:
            log.warning("a batch of %s/%d at %d has a wrong checksum; it is fetched again", *place)
            raise _FetchAgain
        del self._distrusted[place]

    def _for_nobody(self, header: _Header) -> bool:
        """Whether the batch is for no reader: the end of a transaction, or part of one that was aborted."""
        if self._committed_only:
            while self._aborted and self._aborted[0][1] <= header.base_offset:
                self._aborted_producers.add(self._aborted.pop(0)[0])
            if header.control:
                self._aborted_producers.discard(header.producer_id)
        return header.control or (header.transactional and header.producer_id in self._aborted_producers)

    def _readable(self, header: _Header, raw: memoryview) -> Iterator[ConsumerRecord]:
        decoded = Decoded(raw[_HEADER.size :], header.codec)
        if header.codec:
            whole = decoded.read(WHOLE_BYTES + 1)
            records = _parsed(header, _plain(header, raw) + whole) if decoded.trouble is None else None
            decoded.put_back(whole)
        else:
            records = _parsed(header, bytes(raw))
        if records is None:
            yield from self._one_by_one(header, raw, decoded)
            return
        for offset, record in records:
            if offset >= self.next_fetch_offset:
                headers, flaw = tuple(record.headers), None
                if len(headers) > MAX_HEADERS:
                    headers, flaw = headers[:MAX_HEADERS], _too_many_headers(len(headers))
                when = record.timestamp, record.timestamp_type
                yield self._record(offset, when, record.key, record.value, headers, flaw)

    def _one_by_one(self, header: _Header, raw: memoryview, decoded: Decoded) -> Iterator[ConsumerRecord]:
        """The records of a batch that is large, or in which not everything is as it should be."""
        offset = header.base_offset - 1
        for index in range(header.record_count):
            expected = offset + 1
            if index == MAX_RECORDS:
                yield self._unread(raw, expected, header.last_offset, f"the batch holds {header.record_count} records")
                return
            try:
                found = _next(decoded)
            except _Lost as lost:
                reason = f"record {index + 1} of {header.record_count} in its batch: {decoded.trouble or lost}"
                yield self._unread(raw, expected, header.last_offset, reason)
                return
            stated = header.base_offset + found.offset_delta
            left = header.record_count - 1 - index  # each of them has an offset, too
            offset = stated if not header.dense and expected <= stated <= header.last_offset - left else expected
            surplus = index == header.record_count - 1 and bool(decoded.slice(1))
            if surplus and offset == header.last_offset:
                found = found._replace(flaw=found.flaw or Flaw(_SURPLUS))
            if self.next_fetch_offset <= offset <= header.last_offset:
                created = header.first_timestamp + found.timestamp_delta
                when = (header.max_timestamp, 1) if header.appended else (created, 0)
                yield self._record(offset, when, found.key, found.value, found.headers, found.flaw)
            if surplus and offset < header.last_offset:
                yield self._unread(raw, offset + 1, header.last_offset, _SURPLUS)

    def _legacy(self, raw: memoryview) -> Iterator[ConsumerRecord]:
        """The records of a message of magic 0 or 1, which may hold others, compressed."""
        (last,) = struct.unpack_from(">q", raw)
        if last < self.next_fetch_offset:
            return
        try:
            messages = _messages(raw)
        except (_Lost, struct.error) as exc:
            yield self._unread(raw, last, last, f"an old message is malformed: {exc}")
            return
        # Within a compressed message of magic 1 offsets count from its first, and it bears that of the last.
        from_first = last - messages[-1].offset if raw[16] == 1 else 0
        previous = -1
        for message in messages:
            offset = message.offset + from_first
            offset = offset if previous < offset <= last else previous + 1
            previous = offset
            if self.next_fetch_offset <= offset <= last:
                yield self._record(offset, message.when, message.key, message.value, (), None)
        self.next_fetch_offset = max(self.next_fetch_offset, last + 1)

    def _unread(self, raw: memoryview, first: int, last: int, reason: str) -> ConsumerRecord:
        """One record for all from `first` to `last`, with the bytes of their batch. It stands at the last offset: what
        is committed when it is done then follows them all.
        """
        kept = bytes(raw[:WHOLE_BYTES])
        whole = (len(raw), hashlib.sha256(raw).hexdigest()) if len(raw) > len(kept) else None
        flaw = Flaw(
            f"{reason}. The value is the batch as Kafka has it", whole, (first, last) if first < last else None, "batch"
        )
        timestamp = struct.unpack_from(">q", raw, 35)[0] if len(raw) >= _HEADER.size and raw[16] == 2 else -1
        return self._record(last, (timestamp, 0), None, kept, (), flaw)

    def _record(
        self,
        offset: int,
        when: tuple[int | None, int | None],
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        flaw: Flaw | None,
    ) -> ConsumerRecord:
        self.next_fetch_offset = offset + 1
        sizes = -1 if key is None else len(key), -1 if value is None else len(value)
        return ConsumerRecord(*self._tp, offset, *when, key, value, flaw, *sizes, headers)


class Result(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's `FetchResult`, which gives out bytes as well as records in portions."""

    _partition_records: Records | None

    def getall(self, max_records: int | None = None) -> list[ConsumerRecord]:
        """The next records: `max_records` at most, and no more once there are `POLL_BYTES` of them."""
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
    """Have aiokafka unpack what it fetches with this file, in all of this process: it has no other place for that."""
    fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = Fetched, Records, Result


_SURPLUS = "bytes follow the last record of its batch"


class _FetchAgain(Exception):
    """The rest of what was fetched is not believed yet."""


class _Lost(Exception):
    """Where the next record begins cannot be known."""


class _Malformed(Exception):
    """A record is not as it should be, but its end is known."""


class _Found(NamedTuple):
    """A record as its bytes have it."""

    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    flaw: Flaw | None


def _plain(header: _Header, raw: memoryview) -> bytes:
    """The header of the batch as it would be without a codec."""
    plain = bytearray(raw[: _HEADER.size])
    plain[_ATTRIBUTES] = (header.attributes & ~0x07 & 0xFFFF).to_bytes(2, "big")
    return bytes(plain)


def _parsed(header: _Header, batch: bytes) -> list[tuple[int, Any]] | None:
    """The records with their offsets, by aiokafka's compiled parser; None if anything is wrong with them, or the batch
    is too large for it.
    """
    if len(batch) > WHOLE_BYTES + _HEADER.size or header.record_count > MAX_RECORDS:
        return None
    try:
        records = list(DefaultRecordBatch(batch))
    except Exception:  # noqa: BLE001 - whatever it is, our own parser will find it
        return None
    offsets = [record.offset for record in records]
    if header.dense:
        right = offsets == list(range(header.base_offset, header.last_offset + 1))
    else:
        bounds = [header.base_offset - 1, *offsets, header.last_offset + 1]
        right = all(before < after for before, after in pairwise(bounds))
    return list(zip(offsets, records, strict=True)) if right and len(records) == header.record_count else None


def _next(decoded: Decoded) -> _Found:
    """The next record. Raises _Lost where there is none."""
    length = shift = 0
    while True:
        byte = decoded.read(1)
        if not byte:
            raise _Lost("there is no more of the batch")
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
        if shift > 28:
            raise _Lost("its length is no number")
    if length & 1:
        raise _Lost("its length is negative")
    length >>= 1
    if length > WHOLE_BYTES:
        return _large(decoded, length)
    body = decoded.read(length)
    if len(body) < length:
        raise _Lost(f"the batch ends within it, after {len(body)} of {length} bytes")
    return _record(body)


def _record(body: bytes) -> _Found:
    """A record out of its bytes, or as much of it as can be made out."""
    timestamp = offset = 0
    try:
        at = 1  # the attributes, all of them unused: one byte, which aiokafka takes for a number of several
        timestamp, at = _varint(body, at)
        offset, at = _varint(body, at)
        key, at = _bytes(body, at)
        value, at = _bytes(body, at)
    except _Malformed as exc:
        flaw = Flaw(f"{exc}. The value is the record as it came", bytes_of="record")
        return _Found(timestamp, offset, None, body, (), flaw)
    return _Found(timestamp, offset, key, value, *_headers(body, at))


def _headers(body: bytes, at: int) -> tuple[Headers, Flaw | None]:
    """The headers that can be read; where one ends otherwise than it should, none of those after it."""
    headers: list[tuple[str, bytes | None]] = []
    flaw = None
    try:
        count, at = _varint(body, at)
        if count < 0:
            raise _Malformed("the number of its headers is negative")
        for _ in range(min(count, MAX_HEADERS)):
            name, at = _bytes(body, at)
            if name is None:
                raise _Malformed("a header has no name")
            value, at = _bytes(body, at)
            try:
                headers.append((name.decode(), value))
            except UnicodeDecodeError:
                escaped = name.decode("utf-8", "backslashreplace")
                flaw = flaw or Flaw(f"the name of a header is not UTF-8; it is kept as {escaped[:100]}")
                headers.append((escaped, value))
        if count > MAX_HEADERS:
            flaw = flaw or _too_many_headers(count)
        elif at != len(body):
            raise _Malformed(f"{len(body) - at} bytes follow its headers")
    except _Malformed as exc:
        flaw = flaw or Flaw(f"{exc}. The key, the value and {len(headers)} headers are kept")
    return tuple(headers), flaw


def _too_many_headers(count: int) -> Flaw:
    return Flaw(f"it has {count} headers; {MAX_HEADERS} are kept")


def _large(decoded: Decoded, length: int) -> _Found:
    """A record larger than any topic of ours takes: its beginning, and of its value the length and the SHA-256."""
    begun = decoded.read(MAX_VALUE_BYTES + MAX_HEADER_BYTES)
    timestamp = offset = at = 0
    key, size = None, length
    try:
        timestamp, at = _varint(begun, 1)
        offset, at = _varint(begun, at)
        key, at = _bytes(begun, at)
        size, at = _varint(begun, at)
    except _Malformed:
        size = -1
    if not MAX_VALUE_BYTES < size <= length - at:  # it is something else that makes it large
        key, at, size = None, 0, length
    digest = hashlib.sha256(begun[at : at + size])
    _skim(decoded, at + size - len(begun), digest.update)
    after, tail = length - at - size, begun[at + size :]
    if after > MAX_HEADER_BYTES:
        _skim(decoded, after - len(tail), bytes)
        headers: Headers = ()
    else:
        headers, _ = _headers(tail + decoded.read(after - len(tail)), 0)
    reason = f"the value has {size} bytes; {MAX_VALUE_BYTES} are kept"
    kept = begun[at : at + MAX_VALUE_BYTES]
    return _Found(timestamp, offset, key, kept, headers, Flaw(reason, (size, digest.hexdigest())))


def _skim(decoded: Decoded, size: int, use: Callable[[memoryview], Any]) -> None:
    """Read so many bytes and keep none of them. Raises _Lost if there are fewer."""
    while size > 0:
        piece = decoded.slice(size)
        if not piece:
            raise _Lost(f"the batch ends within it, {size} bytes too early")
        use(piece)
        size -= len(piece)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = shift = 0
    for end in range(at, min(at + 10, len(body))):
        number |= (body[end] & 0x7F) << shift
        shift += 7
        if body[end] < 0x80:
            return (number >> 1) ^ -(number & 1), end + 1
    raise _Malformed("a number in it is too long, or cut off")


def _bytes(body: bytes, at: int) -> tuple[bytes | None, int]:
    """Bytes with their length before them, None for a negative one as Kafka has it; and where they end."""
    size, at = _varint(body, at)
    if size < 0:
        return None, at
    if size > len(body) - at:
        raise _Malformed(f"a part of it says that it has {size} bytes, where {len(body) - at} are left")
    return body[at : at + size], at + size


class _Message(NamedTuple):
    """A message of magic 0 or 1."""

    offset: int
    when: tuple[int | None, int | None]
    key: bytes | None
    value: bytes | None


def _messages(raw: memoryview) -> list[_Message]:
    """The message, or those that are compressed in it; at least one. Raises _Lost and struct.error."""
    outer, codec = _message(raw)
    if not codec:
        return [outer]
    decoded = Decoded(memoryview(outer.value or b""), codec)
    inner = decoded.read(WHOLE_BYTES + 1)
    if decoded.trouble or len(inner) > WHOLE_BYTES:
        raise _Lost(decoded.trouble or f"it comes to more than {WHOLE_BYTES} bytes")
    messages = []
    for part in split(memoryview(inner)):
        message, codec = _message(part)
        if codec:
            raise _Lost("it is compressed twice")
        # Kafka's own time, if the outer one has that, holds for all.
        messages.append(message._replace(when=outer.when) if outer.when[1] == 1 else message)
    if not messages:
        raise _Lost("it holds none")
    return messages


def _message(raw: memoryview) -> tuple[_Message, int]:
    """One message, and the codec of what is in it."""
    offset, _, crc, magic, attributes = struct.unpack_from(">qiIbb", raw)
    if magic not in (0, 1) or zlib.crc32(raw[16:]) != crc:
        raise _Lost("it does not have the checksum that it says")
    at = 26 if magic else 18
    when = (struct.unpack_from(">q", raw, 18)[0], attributes >> 3 & 1) if magic else (None, None)
    parts: list[bytes | None] = []
    for _ in range(2):
        (size,) = struct.unpack_from(">i", raw, at)
        at += 4
        if size > len(raw) - at:
            raise _Lost(f"a part of it says that it has {size} bytes")
        parts.append(bytes(raw[at : at + size]) if size >= 0 else None)
        at += max(size, 0)
    return _Message(offset, when, *parts), attributes & 0x07
