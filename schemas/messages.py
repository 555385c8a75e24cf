"""Encodes events, retries and dead letters as Kafka records, each within the size limit of its topic.

Sources: CloudEvents Kafka protocol binding 1.0.2 (headers `ce_*`, `content-type`), W3C Trace Context level 1.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from schemas import ids, texts
from schemas.envelope import ORIGIN_HEADER, ROOT_HEADER, SOURCE, Envelope, Headers, Record
from schemas.events.base import Data
from schemas.topics import INGRESS, STATUS

#: Largest event that a step may produce, in bytes of `size_of`. Its retry, which has more headers, then fits as well.
MAX_PRODUCED_BYTES = 900_000


#: Largest `job.status`, in bytes. Faust writes it to its changelog as ASCII, which is up to three times as long.
MAX_STATUS_BYTES = 256_000


#: Largest dead letter, in bytes: a producer's record with additional headers. Dead-letter topics accept 4 MiB.
MAX_LETTER_BYTES = (4 << 20) - 1024


#: Bytes of the producer's key and headers that a retry and a dead letter keep.
_RETRY_KEY, _RETRY_HEADERS = 16_384, 65_536


_LETTER_KEY, _LETTER_HEADERS = 65_536, 524_288


#: Number of the producer's headers that they keep. Concord's reader keeps the first 500 (`record_format.MAX_HEADERS`);
#: with more, it would drop the headers that Concord appends.
_RETRY_COUNT, _LETTER_COUNT = 440, 460


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")


#: Headers in which a retry or a dead letter describes the key and the headers that it had to cut.
_CUT = ("dlq-key-length", "dlq-key-sha256", "dlq-headers-count")


@dataclass(frozen=True, slots=True)
class Message:
    """A record to be published; the content of an outbox row."""

    id: UUID
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    #: The job that it belongs to, if known, by which the outbox is searched.
    tenant_id: str | None = None
    job_id: str | None = None
    run: int | None = None


def message(
    topic: str,
    data: Data,
    *,
    id: UUID,
    now: datetime,
    cause: Envelope | None = None,
    kind: str | None = None,
    attempt: int = 0,
) -> Message:
    """Encode an event of Concord. Its key names the job; it continues the trace of its cause.

    `job.status` is keyed by tenant and job, as the table of jobs is; the other topics by the job id alone. Two tenants
    may use the same id: their events then share a partition, and nothing else.
    """
    owner = _owner(data)
    tenant_id, job_id = owner["tenant_id"], owner["job_id"]
    subject = ids.job_key(tenant_id, job_id) if topic == STATUS.name and tenant_id and job_id else job_id
    key = (subject or "").encode() or None
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", str(id).encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", (kind or topic).encode()),
        ("ce_time", now.isoformat().encode()),
        ("ce_subject", key or b""),
        ("traceparent", traceparent(cause.traceparent if cause else None, id).encode()),
    ]
    if attempt:
        headers.append(("ce_attempt", str(attempt).encode()))
    return Message(id, topic, key, data.model_dump_json(exclude_none=True).encode(), tuple(headers), **owner)


def _owner(of: object) -> dict[str, Any]:
    """The tenant, job and run of an object, as arguments of `Message`; None where it has no such attribute."""
    return {name: getattr(of, name, None) for name in ("tenant_id", "job_id", "run")}


def tombstone(topic: str, key: str, *, id: UUID, now: datetime, of: object) -> Message:
    """A record without a value, with which a compacted topic forgets the key; `of` names the job."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", str(id).encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", f"{topic}.deleted".encode()),
        ("ce_time", now.isoformat().encode()),
        ("ce_subject", key.encode()),
    )
    return Message(id, topic, key.encode(), None, headers, **_owner(of))


def again(envelope: Envelope, topic: str, *, id: UUID, attempt: int, waits: int = 0) -> Message:
    """A retry of an event on `topic`: the same value and key, with headers for its attempts and its origin.

    A key or headers above the limits are cut, which is noted in headers that its dead letter repeats.
    """
    record = envelope.record
    own_headers = {
        "ce_id": str(id).encode(),
        "ce_source": SOURCE.encode(),
        "ce_type": envelope.type.encode(),
        "ce_attempt": str(attempt).encode(),
        "ce_waits": str(waits).encode(),
        ORIGIN_HEADER: "/".join(map(str, record.origin)).encode(),
        ROOT_HEADER: str(envelope.root).encode(),
        "traceparent": traceparent(envelope.traceparent, id).encode(),
    }
    key, headers = _cut(record, {*own_headers, "ce_replay"}, _RETRY_KEY, _RETRY_HEADERS, _RETRY_COUNT)
    return Message(id, topic, key, record.value, headers + tuple(own_headers.items()), **_owner(envelope.data))


def dead_letter(record: Record, *, id: UUID, stage: str, reason: str, attempts: int, of: object = None) -> Message:
    """The record byte for byte, with headers for the reason, the stage and the position at which it failed, and for the
    job that `of` (an event's data, an outcome) belongs to.

    Parts that exceed the topic's limit are cut: `dlq-truncated` names them, other headers have the length and SHA-256
    of the whole part.
    """
    topic, partition, offset, timestamp_ms = record.origin
    owner = _owner(of)
    details = {
        "dlq-reason": texts.readable(reason, texts.ERROR_CHARS),
        "dlq-stage": stage,
        "dlq-attempts": str(attempts),
        "dlq-topic": topic,
        "dlq-partition": str(partition),
        "dlq-offset": str(offset),
        "dlq-timestamp": str(timestamp_ms),
    }
    key, headers = _cut(record, set(), _LETTER_KEY, _LETTER_HEADERS, _LETTER_COUNT)
    details |= {f"dlq-{name.replace('_', '-')}": str(value) for name, value in owner.items() if value is not None}
    headers += tuple((name, text.encode("utf-8", "backslashreplace")) for name, text in details.items())
    headers += record.flaw.headers if record.flaw else ()
    letter = Message(id, f"{topic}.dlq", key, record.value, headers)
    excess = size_of(letter) + 512 - MAX_LETTER_BYTES
    value = record.value
    if value is not None and excess > 0:
        headers += () if record.flaw and record.flaw.whole else _whole("dlq-value", value)
        value = value[: len(value) - excess]
    elif value is None and key is None:
        value = b""  # aiokafka sends no record that has neither key nor value
    parts = [name for name in ("value", "key", "headers") if any(k.startswith(f"dlq-{name}-") for k, _ in headers)]
    cut = (("dlq-truncated", ",".join(parts).encode()),) if parts else ()
    return Message(id, letter.topic, key, value, headers + cut, **owner)


def _cut(
    record: Record, without: set[str], key_bytes: int, headers_bytes: int, count: int
) -> tuple[bytes | None, Headers]:
    """The record's key and its producer's headers within the limits, with headers that describe what was cut: here, or
    earlier from the record of which this one is a retry.
    """
    notes: Headers = ()
    if record.topic not in INGRESS:
        notes = tuple((name, value) for name, value in record.headers if name in _CUT)
    key = record.key
    if key is not None and len(key) > key_bytes:
        notes += _whole("dlq-key", key)
        key = key[:key_bytes]
    all_headers = [(k, v) for k, v in record.headers if k not in without and not k.startswith("dlq-")]
    encodable = [(k.encode("utf-8", "backslashreplace").decode(), v) for k, v in all_headers]
    headers = _within(encodable, headers_bytes)[:count]
    if len(headers) < len(all_headers):
        notes += (("dlq-headers-count", str(len(all_headers)).encode()),)
    return key, headers + notes


def _within(headers: list[tuple[str, bytes | None]], room: int) -> Headers:
    """The headers, in order, that fit in `room` bytes; one that is too long is left out, and shorter ones follow."""
    fitting = []
    for name, value in headers:
        length = _header_bytes(name, value)
        if length <= room:
            fitting.append((name, value))
            room -= length
    return tuple(fitting)


def _whole(name: str, data: bytes) -> Headers:
    """Headers with the length and SHA-256 of a part before it is cut."""
    return (
        (f"{name}-length", str(len(data)).encode()),
        (f"{name}-sha256", hashlib.sha256(data).hexdigest().encode()),
    )


def size_of(message: Message) -> int:
    """Upper bound of the bytes of a batch with this record alone, which Kafka compares with `max.message.bytes`."""
    headers = sum(_header_bytes(name, value) for name, value in message.headers)
    return 128 + len(message.key or b"") + len(message.value or b"") + headers


def _header_bytes(name: str, value: bytes | None) -> int:
    return len(name.encode("utf-8", "backslashreplace")) + len(value or b"") + 10


def largest(topic: str) -> int:
    """The limit of `size_of` for a message that a step produces to that topic, in bytes."""
    if topic.endswith(".dlq"):
        return MAX_LETTER_BYTES
    return MAX_STATUS_BYTES if topic == STATUS.name else MAX_PRODUCED_BYTES


def traceparent(of_cause: str | None, id: UUID) -> str:
    """The W3C trace context of event `id`: continues the trace of its cause, or begins a new one.

    Derived, not random, so that a replay produces the same bytes.
    """
    span = hashlib.blake2b(id.bytes, digest_size=8).hexdigest()
    match = _TRACEPARENT.fullmatch(of_cause or "")
    trace, flags = match.groups() if match else (id.hex, "01")
    return f"00-{trace}-{span}-{flags}"


def dump_headers(headers: Headers) -> bytes:
    """Encode headers as JSON for the outbox: UTF-8 values as text, others as {"b64": ...}."""
    return orjson.dumps([[key, _text_or_b64(value)] for key, value in headers])


def load_headers(dumped: bytes) -> list[tuple[str, bytes | None]]:
    """The inverse of `dump_headers`, in the form that aiokafka takes."""
    return [(key, _from_text_or_b64(value)) for key, value in orjson.loads(dumped)]


def _from_text_or_b64(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else None


def _text_or_b64(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}
