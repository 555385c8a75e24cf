"""Events as Kafka records: values, headers, retries and dead letters, each within the size that its topic takes.

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

#: Largest event that a step may produce, as `size_of` counts. Its retry, which has more headers, then fits as well.
MAX_PRODUCED_BYTES = 900_000


#: Largest `job.status`. Faust writes it to its changelog in ASCII, three times as long at worst.
MAX_STATUS_BYTES = 256_000


#: Largest dead letter: a stranger's record with some headers more. Its topics take 4 MiB.
MAX_LETTER_BYTES = (4 << 20) - 1024


#: Bytes of a stranger's key and headers that a retry keeps, and a dead letter.
_RETRY_KEY, _RETRY_HEADERS = 16_384, 65_536


_LETTER_KEY, _LETTER_HEADERS = 65_536, 524_288


#: How many of its headers. A reader of ours takes 500 (`record_format.MAX_HEADERS`) and cuts off the last, which would
#: be those that we add.
_RETRY_COUNT, _LETTER_COUNT = 440, 460


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")


#: What a retry or a dead letter says about a key and headers that it had to cut.
_CUT = ("dlq-key-length", "dlq-key-sha256", "dlq-headers-count")


@dataclass(frozen=True, slots=True)
class Message:
    """A record to be published: what an outbox row holds."""

    id: UUID
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    #: Whose job it is about, where that is known: for whoever looks for a job's rows in the outbox.
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
    """An event of ours, ready to publish. Its key names the job, its trace is the one of its cause.

    `job.status` is keyed by tenant and job, because the table of jobs is; the other topics by the job id alone, which
    two tenants may share: then their events share a partition, and nothing else.
    """
    whose = _belonging(data)
    tenant_id, job_id = whose["tenant_id"], whose["job_id"]
    named = ids.job_key(tenant_id, job_id) if topic == STATUS.name and tenant_id and job_id else job_id
    key = (named or "").encode() or None
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
    return Message(id, topic, key, data.model_dump_json(exclude_none=True).encode(), tuple(headers), **whose)


def _belonging(of: object) -> dict[str, Any]:
    """Whose job something is about, as arguments of `Message`."""
    return {name: getattr(of, name, None) for name in ("tenant_id", "job_id", "run")}


def again(envelope: Envelope, topic: str, *, id: UUID, attempt: int, waits: int = 0) -> Message:
    """The same event once more on `topic`: value and key untouched, its tries counted, its origin remembered.

    A key or headers that are too long for it are cut, which its dead letter will say.
    """
    record = envelope.record
    ours = {
        "ce_id": str(id).encode(),
        "ce_source": SOURCE.encode(),
        "ce_type": envelope.type.encode(),
        "ce_attempt": str(attempt).encode(),
        "ce_waits": str(waits).encode(),
        ORIGIN_HEADER: "/".join(map(str, record.origin)).encode(),
        ROOT_HEADER: str(envelope.root).encode(),
        "traceparent": traceparent(envelope.traceparent, id).encode(),
    }
    key, headers = _cut(record, {*ours, "ce_replay"}, _RETRY_KEY, _RETRY_HEADERS, _RETRY_COUNT)
    return Message(id, topic, key, record.value, headers + tuple(ours.items()), **_belonging(envelope.data))


def dead_letter(record: Record, *, id: UUID, stage: str, reason: str, attempts: int, of: object = None) -> Message:
    """The record as it came, byte for byte, with why and where it was given up; and whose job it was about, where `of`
    (an event's data, an outcome) tells.

    What does not fit the topic is cut: `dlq-truncated` names the parts; the whole one's length and sha256 are kept.
    """
    topic, partition, offset, timestamp_ms = record.origin
    whose = _belonging(of)
    why = {
        "dlq-reason": texts.readable(reason, texts.ERROR_CHARS),
        "dlq-stage": stage,
        "dlq-attempts": str(attempts),
        "dlq-topic": topic,
        "dlq-partition": str(partition),
        "dlq-offset": str(offset),
        "dlq-timestamp": str(timestamp_ms),
    }
    key, headers = _cut(record, set(), _LETTER_KEY, _LETTER_HEADERS, _LETTER_COUNT)
    why |= {f"dlq-{name.replace('_', '-')}": str(value) for name, value in whose.items() if value is not None}
    headers += tuple((name, text.encode("utf-8", "backslashreplace")) for name, text in why.items())
    headers += record.flaw.headers if record.flaw else ()
    letter = Message(id, f"{topic}.dlq", key, record.value, headers)
    excess = size_of(letter) + 512 - MAX_LETTER_BYTES
    value = record.value
    if value is not None and excess > 0:
        headers += () if record.flaw and record.flaw.whole else _whole("dlq-value", value)
        value = value[: len(value) - excess]
    elif value is None and key is None:
        value = b""  # aiokafka sends no record without both
    parts = [name for name in ("value", "key", "headers") if any(k.startswith(f"dlq-{name}-") for k, _ in headers)]
    cut = (("dlq-truncated", ",".join(parts).encode()),) if parts else ()
    return Message(id, letter.topic, key, value, headers + cut, **whose)


def _cut(
    record: Record, without: set[str], key_bytes: int, headers_bytes: int, count: int
) -> tuple[bytes | None, Headers]:
    """The record's key and a stranger's headers, within bounds, with headers that say what was cut: here, or earlier
    from the record of which this one is a retry.
    """
    notes: Headers = ()
    if record.topic not in INGRESS:
        notes = tuple((name, value) for name, value in record.headers if name in _CUT)
    key = record.key
    if key is not None and len(key) > key_bytes:
        notes += _whole("dlq-key", key)
        key = key[:key_bytes]
    theirs = [(k, v) for k, v in record.headers if k not in without and not k.startswith("dlq-")]
    kept = _within([(k.encode("utf-8", "backslashreplace").decode(), v) for k, v in theirs], headers_bytes)[:count]
    if len(kept) < len(theirs):
        notes += (("dlq-headers-count", str(len(theirs)).encode()),)
    return key, kept + notes


def _within(headers: list[tuple[str, bytes | None]], room: int) -> Headers:
    """The headers, in their order, for which there is room; a long one does not keep out those that follow."""
    kept = []
    for name, value in headers:
        length = _header_bytes(name, value)
        if length <= room:
            kept.append((name, value))
            room -= length
    return tuple(kept)


def _whole(name: str, data: bytes) -> Headers:
    """What a part was before it is cut."""
    return (
        (f"{name}-length", str(len(data)).encode()),
        (f"{name}-sha256", hashlib.sha256(data).hexdigest().encode()),
    )


def size_of(message: Message) -> int:
    """Bytes of a batch that holds only this record, or a few more: what Kafka compares with `max.message.bytes`."""
    headers = sum(_header_bytes(name, value) for name, value in message.headers)
    return 128 + len(message.key or b"") + len(message.value or b"") + headers


def _header_bytes(name: str, value: bytes | None) -> int:
    return len(name.encode("utf-8", "backslashreplace")) + len(value or b"") + 10


def largest(topic: str) -> int:
    """How large a message that a step makes for that topic may be, as `size_of` counts."""
    if topic.endswith(".dlq"):
        return MAX_LETTER_BYTES
    return MAX_STATUS_BYTES if topic == STATUS.name else MAX_PRODUCED_BYTES


def traceparent(of_cause: str | None, id: UUID) -> str:
    """The trace context of event `id`: its cause's trace, continued; a new trace where there is none.

    Derived, not random, so that a replay makes the same bytes.
    """
    span = hashlib.blake2b(id.bytes, digest_size=8).hexdigest()
    match = _TRACEPARENT.fullmatch(of_cause or "")
    trace, flags = match.groups() if match else (id.hex, "01")
    return f"00-{trace}-{span}-{flags}"


def dump_headers(headers: Headers) -> bytes:
    """Headers as JSON bytes for the outbox: text where it is text, else {"b64": ...}."""
    return orjson.dumps([[key, _text_or_b64(value)] for key, value in headers])


def load_headers(dumped: bytes) -> list[tuple[str, bytes | None]]:
    """The inverse of `dump_headers`, as aiokafka wants them."""
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
