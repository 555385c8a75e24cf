"""Kafka's message formats v0 and v1 (magic 0 and 1), which brokers before 0.11 wrote and newer ones still deliver."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from agents.runtime.kafka.decompression import DecompressedStream
from agents.runtime.kafka.record_format import WHOLE_BYTES, split_batches


class MalformedMessage(Exception):
    """A message breaks its format; the text says how."""


class LegacyMessage(NamedTuple):
    """A message of magic 0 or 1."""

    offset: int
    #: Milliseconds since the epoch, and Kafka's timestamp type; None and None in magic 0.
    timestamp: tuple[int | None, int | None]
    key: bytes | None
    value: bytes | None


def unpack_messages(raw: memoryview) -> list[LegacyMessage]:
    """The message in `raw`, or the messages that are compressed in it, with their absolute offsets; at least one.

    Raises:
        MalformedMessage: the checksum is wrong, a length is impossible, or nothing can be decompressed.
        struct.error: the message is cut off.
    """
    outer, codec = _parsed_message(raw)
    if not codec:
        return [outer]
    inner = [_inner_message(part, outer) for part in split_batches(memoryview(_decompressed(outer, codec)))]
    if not inner:
        raise MalformedMessage("it contains no message")
    # Within a compressed message of magic 1 offsets count from its first, and the outer one has that of the last.
    base = outer.offset - inner[-1].offset if raw[16] == 1 else 0
    return [message._replace(offset=message.offset + base) for message in inner]


def _decompressed(outer: LegacyMessage, codec: int) -> bytes:
    stream = DecompressedStream(memoryview(outer.value or b""), codec)
    data = stream.read(WHOLE_BYTES + 1)
    if stream.error or len(data) > WHOLE_BYTES:
        raise MalformedMessage(stream.error or f"it decompresses to more than {WHOLE_BYTES} bytes")
    return data


def _inner_message(raw: memoryview, outer: LegacyMessage) -> LegacyMessage:
    message, codec = _parsed_message(raw)
    if codec:
        raise MalformedMessage("it is compressed twice")
    # The time of the append, if the outer message has that, is the time of all.
    return message._replace(timestamp=outer.timestamp) if outer.timestamp[1] == 1 else message


def _parsed_message(raw: memoryview) -> tuple[LegacyMessage, int]:
    """One message, and the codec of its value."""
    offset, _, crc, magic, attributes = struct.unpack_from(">qiIbb", raw)
    if magic not in (0, 1) or zlib.crc32(raw[16:]) != crc:
        raise MalformedMessage("its checksum is wrong")
    at = 26 if magic else 18
    timestamp = (struct.unpack_from(">q", raw, 18)[0], attributes >> 3 & 1) if magic else (None, None)
    key, at = _sized_bytes(raw, at)
    value, _ = _sized_bytes(raw, at)
    return LegacyMessage(offset, timestamp, key, value), attributes & 0x07


def _sized_bytes(raw: memoryview, at: int) -> tuple[bytes | None, int]:
    """The length-prefixed bytes at index `at`, None for a negative length; and the index after them."""
    (size,) = struct.unpack_from(">i", raw, at)
    at += 4
    if size > len(raw) - at:
        raise MalformedMessage(f"the length of a field is {size} bytes, where {len(raw) - at} are left")
    return (bytes(raw[at : at + size]) if size >= 0 else None), at + max(size, 0)
