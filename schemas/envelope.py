"""Kafka records as events: JSON values, CloudEvents 1.0 headers in binary mode, and what identifies an event.

Source: CloudEvents Kafka protocol binding 1.0.2 (headers `ce_*`, `content-type`).
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from pydantic import ValidationError

from schemas import ids, texts
from schemas.errors import MalformedEvent, TooLarge
from schemas.events.audio import AudioUploaded
from schemas.events.base import Data, Event
from schemas.topics import INGRESS, Topic

_Model = TypeVar("_Model", bound=Data)


#: Kafka knows headers without a value.
Headers = tuple[tuple[str, bytes | None], ...]


#: Largest value accepted from a stranger, in bytes.
MAX_VALUE_BYTES = 900_000


#: Largest record on any topic of events: fits a topic that somebody made with Kafka's own limit, 1,048,588 bytes.
MAX_EVENT_BYTES = 1_000_000


SOURCE = "/concord"


ORIGIN_HEADER, ROOT_HEADER = "concord-origin", "concord-root"


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
        place = _PLACE.fullmatch(self.header(ORIGIN_HEADER) or "")
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
    return _uuid(record.header(ROOT_HEADER) or "") if record.topic not in INGRESS else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
