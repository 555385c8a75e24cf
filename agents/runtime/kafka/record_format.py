"""Kafka's record format v2 (message magic 2): the header of a batch, and the records in it, read field by field.

Producers choose these bytes and brokers do not check most of them, so no function here trusts a length, a count or an
offset delta. A record that breaks the format but whose end is known is returned with a `Flaw`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from agents.runtime.kafka.decompression import DecompressedStream
from schemas.envelope import MAX_VALUE_BYTES, Flaw, Headers

#: Bytes of records up to which a batch is parsed at once, by aiokafka's compiled parser; a larger one is parsed record
#: by record. Also the largest record that is kept whole: no topic of Concord's takes a larger one.
WHOLE_BYTES = 4 << 20

#: Headers of one record, and bytes in them, that are kept.
MAX_HEADERS, MAX_HEADER_BYTES = 500, 512 << 10

HEADER_STRUCT = struct.Struct(">qiibIhiqqqhii")

#: Where the bytes begin that a batch's checksum covers, and where its attributes are.
CRC_START = 21
ATTRIBUTES = slice(21, 23)

#: The smallest value of a batch's length field: a message of magic 0 without key and value.
_MIN_LENGTH = 14


class RecordBoundaryLost(Exception):
    """The end of a record is unknown, so neither it nor any record after it in the batch can be read."""


class _MalformedRecord(Exception):
    """A record breaks the format, but its end is known: the records after it can be read."""


class BatchHeader(NamedTuple):
    """The header of a batch of magic 2; times are in milliseconds since the epoch."""

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
        """The offset of the last record."""
        return self.base_offset + self.last_offset_delta

    @property
    def codec(self) -> int:
        """The compression codec; 0 for none."""
        return self.attributes & 0x07

    @property
    def has_log_append_time(self) -> bool:
        """Whether `max_timestamp`, the broker's time of the append, is the time of every record."""
        return bool(self.attributes & 0x08)

    def record_time(self, delta: int) -> tuple[int, int]:
        """The time of the record with this timestamp delta, and its type: 0 is the producer's, 1 the broker's."""
        return (self.max_timestamp, 1) if self.has_log_append_time else (self.first_timestamp + delta, 0)

    @property
    def transactional(self) -> bool:
        """Whether the batch belongs to a transaction."""
        return bool(self.attributes & 0x10)

    @property
    def control(self) -> bool:
        """Whether the batch is the commit or abort marker of a transaction."""
        return bool(self.attributes & 0x20)

    def is_consistent(self, length: int) -> bool:
        """Whether a batch of `length` bytes can have `record_count` records; after compaction it may have none."""
        if self.record_count == 0:
            return self.last_offset_delta >= 0 and length == HEADER_STRUCT.size
        return 0 < self.record_count <= self.last_offset_delta + 1

    @property
    def dense(self) -> bool:
        """Whether compaction has removed no record: a record's index in the batch then gives its offset."""
        return self.record_count == self.last_offset_delta + 1

    def uncompressed(self, raw: memoryview) -> bytes:
        """The bytes of this header, taken from the batch `raw`, with the codec set to none."""
        header = bytearray(raw[: HEADER_STRUCT.size])
        header[ATTRIBUTES] = (self.attributes & ~0x07 & 0xFFFF).to_bytes(2, "big")
        return bytes(header)


class ParsedRecord(NamedTuple):
    """A record as its bytes have it: time and offset are relative to the batch's first."""

    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    flaw: Flaw | None

    def with_flaw(self, reason: str) -> ParsedRecord:
        """The record with a flaw for this reason, unless it has another one already."""
        return self._replace(flaw=self.flaw or Flaw(reason))


def split_batches(data: memoryview) -> Iterator[memoryview]:
    """The batches in a fetch response. An incomplete last one is left out; after an impossible length field, the rest
    of the data is one batch.
    """
    while len(data) >= 12:
        end = 12 + int.from_bytes(data[8:12], "big", signed=True)
        if end < 12 + _MIN_LENGTH:
            end = len(data)
        if end > len(data):
            return
        yield data[:end]
        data = data[end:]


def next_record(stream: DecompressedStream) -> ParsedRecord:
    """Read the next record of a batch.

    Raises:
        RecordBoundaryLost: the stream ends, or the record's length cannot be read.
    """
    length = _record_length(stream)
    if length > WHOLE_BYTES:
        return _large_record(stream, length)
    body = stream.read(length)
    if len(body) < length:
        raise RecordBoundaryLost(f"the batch ends within it, after {len(body)} of {length} bytes")
    return _parsed_record(body)


def too_many_headers(count: int) -> Flaw:
    """The flaw of a record with `count` headers, of which `MAX_HEADERS` are kept."""
    return Flaw(f"it has {count} headers; {MAX_HEADERS} are kept")


def _record_length(stream: DecompressedStream) -> int:
    length = shift = 0
    while True:
        byte = stream.read(1)
        if not byte:
            raise RecordBoundaryLost("the batch ends before it")
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
        if shift > 28:
            raise RecordBoundaryLost("its length is not a number")
    if length & 1:
        raise RecordBoundaryLost("its length is negative")
    return length >> 1


def _parsed_record(body: bytes) -> ParsedRecord:
    """The record in these bytes, or as many of its fields as can be read."""
    timestamp = offset = 0
    try:
        at = 1  # the attributes, all of them unused: one byte, which aiokafka reads as a varint of several
        timestamp, at = _varint(body, at)
        offset, at = _varint(body, at)
        key, at = _sized_bytes(body, at)
        value, at = _sized_bytes(body, at)
    except _MalformedRecord as exc:
        flaw = Flaw(f"{exc}. The value is the whole record as it was received", bytes_of="record")
        return ParsedRecord(timestamp, offset, None, body, (), flaw)
    return ParsedRecord(timestamp, offset, key, value, *_headers(body, at))


def _headers(body: bytes, at: int) -> tuple[Headers, Flaw | None]:
    """The headers up to the first one that cannot be read."""
    headers: list[tuple[str, bytes | None]] = []
    flaw = None
    try:
        count, at = _varint(body, at)
        if count < 0:
            raise _MalformedRecord("the number of its headers is negative")
        for _ in range(min(count, MAX_HEADERS)):
            name, at = _sized_bytes(body, at)
            if name is None:
                raise _MalformedRecord("a header has no name")
            value, at = _sized_bytes(body, at)
            text, name_flaw = _header_name(name)
            flaw = flaw or name_flaw
            headers.append((text, value))
        if count > MAX_HEADERS:
            flaw = flaw or too_many_headers(count)
        elif at != len(body):
            raise _MalformedRecord(f"{len(body) - at} bytes follow its headers")
    except _MalformedRecord as exc:
        flaw = flaw or Flaw(f"{exc}. The key, the value and {len(headers)} headers are kept")
    return tuple(headers), flaw


def _header_name(name: bytes) -> tuple[str, Flaw | None]:
    try:
        return name.decode(), None
    except UnicodeDecodeError:
        escaped = name.decode("utf-8", "backslashreplace")
        return escaped, Flaw(f"the name of a header is not UTF-8; it is kept as {escaped[:100]}")


def _large_record(stream: DecompressedStream, length: int) -> ParsedRecord:
    """A record larger than `WHOLE_BYTES`: its beginning is kept, and of its value the length and the SHA-256."""
    head = stream.read(MAX_VALUE_BYTES + MAX_HEADER_BYTES)
    timestamp = offset = at = 0
    key, size = None, length
    try:
        timestamp, at = _varint(head, 1)
        offset, at = _varint(head, at)
        key, at = _sized_bytes(head, at)
        size, at = _varint(head, at)
    except _MalformedRecord:
        size = -1
    if not MAX_VALUE_BYTES < size <= length - at:  # not the value but something else makes the record large
        key, at, size = None, 0, length
    digest = hashlib.sha256(head[at : at + size])
    _skip_bytes(stream, at + size - len(head), digest.update)
    headers = _headers_after_large_value(stream, head[at + size :], length - at - size)
    reason = f"the value has {size} bytes; {MAX_VALUE_BYTES} are kept"
    value = head[at : at + MAX_VALUE_BYTES]
    return ParsedRecord(timestamp, offset, key, value, headers, Flaw(reason, (size, digest.hexdigest())))


def _headers_after_large_value(stream: DecompressedStream, begin: bytes, size: int) -> Headers:
    """The headers, `size` bytes of which `begin` is read already; none if they are too large to keep."""
    if size > MAX_HEADER_BYTES:
        _skip_bytes(stream, size - len(begin), bytes)
        return ()
    headers, _ = _headers(begin + stream.read(size - len(begin)), 0)
    return headers


def _skip_bytes(stream: DecompressedStream, size: int, use: Callable[[memoryview], Any]) -> None:
    """Read `size` bytes, pass each chunk to `use` and keep none. Raises RecordBoundaryLost if the stream has fewer."""
    while size > 0:
        chunk = stream.read_some(size)
        if not chunk:
            raise RecordBoundaryLost(f"the batch ends within it, {size} bytes too early")
        use(chunk)
        size -= len(chunk)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """The zigzag-encoded number at index `at`, and the index after it."""
    number = shift = 0
    for end in range(at, min(at + 10, len(body))):
        number |= (body[end] & 0x7F) << shift
        shift += 7
        if body[end] < 0x80:
            return (number >> 1) ^ -(number & 1), end + 1
    raise _MalformedRecord("a number in it is too long, or cut off")


def _sized_bytes(body: bytes, at: int) -> tuple[bytes | None, int]:
    """The length-prefixed bytes at index `at`, None for a negative length as in Kafka's protocol; and the index after
    them.
    """
    size, at = _varint(body, at)
    if size < 0:
        return None, at
    if size > len(body) - at:
        raise _MalformedRecord(f"the length of a field is {size} bytes, where {len(body) - at} are left")
    return body[at : at + size], at + size
