"""Events as Kafka records and back: JSON values, CloudEvents 1.0 headers in binary mode, W3C trace context.

Sources: CloudEvents Kafka protocol binding 1.0.2 (headers `ce_*`, `content-type`), W3C Trace Context level 1.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson
from pydantic import ValidationError

from schemas import ids, texts
from schemas.errors import MalformedEvent, TooLarge
from schemas.events import AudioUploaded, Data, Event
from schemas.topics import INGRESS, STATUS, Topic

_Model = TypeVar("_Model", bound=Data)

#: Kafka knows headers without a value.
Headers = tuple[tuple[str, bytes | None], ...]

#: Largest value accepted from a stranger, in bytes.
MAX_VALUE_BYTES = 900_000

#: Largest event that a step may produce, as `size_of` counts. Its retry, which has more headers, then fits as well.
MAX_PRODUCED_BYTES = 900_000

#: Largest record on any topic of events: fits a topic that somebody made with Kafka's own limit, 1,048,588 bytes.
MAX_EVENT_BYTES = 1_000_000

#: Largest `job.status`. Faust writes it to its changelog in ASCII, three times as long at worst.
MAX_STATUS_BYTES = 256_000

#: Largest dead letter: a stranger's record with some headers more. Its topics take 4 MiB.
MAX_LETTER_BYTES = (4 << 20) - 1024

#: Bytes of a stranger's key and headers that a retry keeps, and a dead letter.
_RETRY_KEY, _RETRY_HEADERS = 16_384, 65_536
_LETTER_KEY, _LETTER_HEADERS = 65_536, 524_288

#: How many of its headers. A reader of ours takes 500 (`record_batches.MAX_HEADERS`) and cuts off the last, which would
#: be those that we add.
_RETRY_COUNT, _LETTER_COUNT = 440, 460

SOURCE = "/concord"

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
_ORIGIN, _ROOT = "concord-origin", "concord-root"
#: What a retry or a dead letter says about a key and headers that it had to cut.
_CUT = ("dlq-key-length", "dlq-key-sha256", "dlq-headers-count")
#: Topic (Kafka's own rule), partition, offset and timestamp: -1 if the record has none, absent if an earlier version
#: wrote the retry. (`str.isdigit` takes more for a digit than `int` does.)
_PLACE = re.compile(r"([A-Za-z0-9._-]{1,240})/([0-9]{1,9})/([0-9]{1,18})(?:/(-?[0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a record does not hold what was sent, and what is known of that."""

    reason: str
    #: Length and SHA-256 of the whole value, where only its beginning is kept.
    whole: tuple[int, str] | None = None
    #: First and last offset, where several records cannot be told apart.
    offsets: tuple[int, int] | None = None
    #: What the value is the bytes of ("record", "batch"), where that is more than a value.
    bytes_of: str | None = None

    @property
    def headers(self) -> Headers:
        """What its dead letter says of it, besides the reason."""
        notes: dict[str, str] = {}
        if self.whole:
            notes |= {"dlq-value-length": str(self.whole[0]), "dlq-value-sha256": self.whole[1]}
        if self.offsets:
            notes["dlq-offsets"] = "{}-{}".format(*self.offsets)
        if self.bytes_of:
            notes["dlq-bytes-of"] = self.bytes_of
        return tuple((name, text.encode()) for name, text in notes.items())


@dataclass(frozen=True, slots=True)
class Record:
    """A record as Kafka delivered it, undecoded."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0
    #: Set if it could not be read as it was sent.
    flaw: Flaw | None = None

    def header(self, name: str) -> str | None:
        """The last header of that name as text, or None."""
        for key, value in reversed(self.headers):
            if key == name:
                return value.decode("utf-8", "replace") if value is not None else None
        return None

    @property
    def origin(self) -> tuple[str, int, int, int]:
        """Topic, partition, offset and timestamp (ms) with which the event first entered: a retry remembers them.

        Where strangers write, only the record's own place counts: the header could be anything.
        """
        own = self.topic, self.partition, self.offset, self.timestamp_ms
        if self.topic in INGRESS:
            return own
        place = _PLACE.fullmatch(self.header(_ORIGIN) or "")
        return (place[1], int(place[2]), int(place[3]), int(place[4] or 0)) if place else own


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded event: its data with what its headers say."""

    #: Identity for the inbox: the same event, delivered again or retried by Kafka, has the same.
    id: UUID
    type: str
    data: Data
    record: Record
    #: Earlier tries of this event.
    attempt: int = 0
    traceparent: str | None = None
    #: How often an operator put it back from the dead letters.
    replay: int = 0
    #: How often it came back because it was not done in time, which is not a try.
    waits: int = 0
    #: The id of the event of which this one is a retry; its own id for any other.
    root: UUID = field(default=UUID(int=0))

    def __post_init__(self) -> None:
        if not self.root.int:
            object.__setattr__(self, "root", self.id)


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


def decode(record: Record, topics: dict[str, Topic]) -> Envelope:
    """The event in a record of one of these topics (by name).

    Raises:
        MalformedEvent: saying which field is wrong, never repeating more of the value than that.
    """
    if record.flaw is not None:
        raise MalformedEvent(record.flaw.reason)
    topic = topics[record.topic]
    kind = record.header("ce_type") or next(iter(topic.models))
    model = topic.models.get(kind)
    if model is None:
        raise MalformedEvent(
            f"ce_type {kind[:100]!r} does not belong on {topic.name}; expected {', '.join(topic.models)}"
        )
    data = _validate(record.value, model, MAX_VALUE_BYTES if topic.name in INGRESS else MAX_EVENT_BYTES)
    return Envelope(
        id=identity(record, data),
        type=kind,
        data=data,
        record=record,
        attempt=_count(record, "ce_attempt"),
        traceparent=record.header("traceparent"),
        replay=_count(record, "ce_replay"),
        waits=_count(record, "ce_waits"),
        root=_root(record) or UUID(int=0),
    )


def salvaged(record: Record, topics: dict[str, Topic]) -> Envelope | None:
    """Whose job a record is about that `decode` refuses, with what else is valid in it; None if that cannot be told.

    Its id is the record's place, so that a repeat of the event which can be read is no repeat of this one.
    """
    fields = {}
    for name, value in (_parsed(record.value) or {}).items():
        with contextlib.suppress(ValueError):
            fields[name] = texts.storable_json(value)
    models = topics[record.topic].models
    kind = record.header("ce_type") or ""
    model = models.get(kind) or next(iter(models.values()))
    data = _salvaged_upload(fields) if model is AudioUploaded else _salvaged_event(fields, model)
    if data is None:
        return None
    if isinstance(data, AudioUploaded) and not (data.job_id or data.reference or record.header("ce_id")):
        return None  # nobody could know which job it is
    root = _root(record) or identity(record, data)
    return Envelope(id=identity(record), type=kind, data=data, record=record, root=root)


#: Stands for what an upload must have and has not; a job with it was never fetched, and cannot be.
UNREADABLE_URI, UNREADABLE_NAME = "unreadable://upload", "audio"


def _salvaged_upload(fields: dict[str, Any]) -> AudioUploaded | None:
    upload = {"audio_uri": UNREADABLE_URI, "filename": UNREADABLE_NAME, "tenant_id": fields.get("tenant_id")}
    id, reference = fields.get("job_id"), fields.get("reference")
    # Its names, as far as they are any: an id that is too odd for one is the producer's own name for the job.
    odd = None if id is None or (isinstance(id, str) and ids.canonical_uuid(id)) else id
    names: list[dict[str, Any]] = [
        {"job_id": id, "reference": reference},
        {"job_id": id},
        {"reference": reference},
        {"reference": odd},
    ]
    given = [named for named in names if None not in named.values()]
    named = next((n for n in [*given, {}] if _validated(AudioUploaded, upload | n) is not None), None)
    if named is None:
        return None
    upload |= named
    for name in AudioUploaded.model_fields.keys() & fields.keys() - {"tenant_id", "job_id", "reference"}:
        if _validated(AudioUploaded, upload | {name: fields[name]}) is not None:
            upload[name] = fields[name]
    return _validated(AudioUploaded, upload)


def _salvaged_event(fields: dict[str, Any], model: type[Data]) -> Data | None:
    names = {name: fields[name] for name in Event.model_fields.keys() & fields.keys()}
    return _validated(model, names) or _validated(Event, names)


def _validated(model: type[_Model], fields: dict[str, Any]) -> _Model | None:
    try:
        return model.model_validate(fields)
    except ValidationError:
        return None


def _validate(value: bytes | None, model: type[Data], limit: int) -> Data:
    if value is None:
        raise MalformedEvent("the value is empty; expected a JSON object")
    if len(value) > limit:
        raise TooLarge(f"the value has {len(value)} bytes; at most {limit} are accepted")
    try:
        return _read(value, model)
    except ValidationError as exc:
        raise MalformedEvent(
            "; ".join(_complaint(e["loc"], e["msg"]) for e in exc.errors(include_input=False)[:8])
        ) from None
    except (ValueError, RecursionError) as exc:
        raise MalformedEvent(f"not a JSON object: {type(exc).__name__}") from None


def _read(value: bytes, model: type[Data]) -> Data:
    try:
        return model.model_validate_json(value)
    except ValidationError as exc:
        if exc.errors(include_input=False, include_url=False)[0]["type"] != "json_invalid":
            raise
        # Producers cut texts in the middle of an emoji, and begin a file with a byte order mark: other parsers take it.
        mended = _parsed(value)
        if mended is None:
            raise
        return model.model_validate(texts.storable_json(mended))


def _parsed(value: bytes | None) -> dict[str, Any] | None:
    """The JSON object in a value as Python's own parser reads it, which takes more than pydantic's."""
    try:
        parsed = json.loads((value or b"").decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _complaint(where: tuple[int | str, ...], what: str) -> str:
    path = ".".join(str(part)[:60] for part in where)
    return f"{path}: {what}" if path else what


def _count(record: Record, header: str) -> int:
    text = record.header(header) or "0"
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def identity(record: Record, data: Data | None = None) -> UUID:
    """What makes a record the same event as another; see `schemas.ids`."""
    ce_id = (record.header("ce_id") or "").strip()
    source = record.header("ce_source") or ""
    if ce_id and source == SOURCE and record.topic not in INGRESS:
        own = _uuid(ce_id)
    elif ce_id and data is not None:
        own = ids.ingress_id(getattr(data, "tenant_id", ""), source, ce_id, _about(data))
    else:
        own = None
    id = own or ids.record_id(*record.origin, record.value)
    replay = _count(record, "ce_replay")
    return ids.event_id(id, "replay", replay) if replay else id


def _about(data: Data) -> str:
    """What tells an upload from others of the same producer."""
    if not isinstance(data, AudioUploaded):
        return ""
    return "\x1f".join((data.job_id or "", data.reference or "", data.audio_uri))


def _root(record: Record) -> UUID | None:
    """Of which event this is a retry, as `again` wrote it down; nothing that a stranger says."""
    return _uuid(record.header(_ROOT) or "") if record.topic not in INGRESS else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


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
        _ORIGIN: "/".join(map(str, record.origin)).encode(),
        _ROOT: str(envelope.root).encode(),
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
