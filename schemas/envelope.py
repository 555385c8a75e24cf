"""Decodes Kafka records to events: JSON values, CloudEvents 1.0 headers in binary mode, and event identity.

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
from schemas.events.asr import RecognitionAnswered
from schemas.events.audio import AudioUploaded
from schemas.events.base import Data, Event
from schemas.events.conversation import ConversationRequested
from schemas.topics import INGRESS, Topic

_Model = TypeVar("_Model", bound=Data)


#: Header values may be null in Kafka.
Headers = tuple[tuple[str, bytes | None], ...]


#: Largest value accepted from an external producer, in bytes.
MAX_VALUE_BYTES = 900_000


#: Largest record on any event topic, in bytes: fits a topic that was created with Kafka's default limit, 1,048,588.
MAX_EVENT_BYTES = 1_000_000


SOURCE = "/concord"


ORIGIN_HEADER, ROOT_HEADER = "concord-origin", "concord-root"


#: Topic (Kafka's naming rule), partition, offset and timestamp: -1 if the record has none, absent if an earlier version
#: wrote the retry. `[0-9]`, because `str.isdigit` accepts digits that `int` does not.
_POSITION = re.compile(r"([A-Za-z0-9._-]{1,240})/([0-9]{1,9})/([0-9]{1,18})(?:/(-?[0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a record differs from what its producer sent, and what is left of the original."""

    reason: str
    #: Length in bytes and SHA-256 of the whole value, if only its beginning is kept.
    whole: tuple[int, str] | None = None
    #: First and last offset, if several records cannot be separated.
    offsets: tuple[int, int] | None = None
    #: "record" or "batch" if the value holds the raw bytes of one, None if it holds the value alone.
    bytes_of: str | None = None

    @property
    def headers(self) -> Headers:
        """Headers that describe the flaw in a dead letter, besides the reason."""
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
    #: Set if the record could not be read as it was sent.
    flaw: Flaw | None = None

    def header(self, name: str) -> str | None:
        """The last header of that name as text, or None."""
        for key, value in reversed(self.headers):
            if key == name:
                return value.decode("utf-8", "replace") if value is not None else None
        return None

    @property
    def origin(self) -> tuple[str, int, int, int]:
        """Topic, partition, offset and timestamp (ms) of the event's first record, which a retry carries in a header.

        On ingress topics only the record's own position counts: an external producer can set the header to anything.
        """
        own = self.topic, self.partition, self.offset, self.timestamp_ms
        if self.topic in INGRESS:
            return own
        match = _POSITION.fullmatch(self.header(ORIGIN_HEADER) or "")
        return (match[1], int(match[2]), int(match[3]), int(match[4] or 0)) if match else own


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded event: its payload and the attributes from its headers."""

    #: Identity in the inbox; a redelivery of the event has the same id.
    id: UUID
    type: str
    data: Data
    record: Record
    #: Number of earlier attempts at this event.
    attempt: int = 0
    traceparent: str | None = None
    #: How often an operator has replayed it from the dead letters.
    replay: int = 0
    #: How often it was rescheduled because its handler exceeded the time limit, which does not count as an attempt.
    waits: int = 0
    #: The id of the original event if this is a retry, otherwise `id`.
    root: UUID = field(default=UUID(int=0))

    def __post_init__(self) -> None:
        if not self.root.int:
            object.__setattr__(self, "root", self.id)


def decode(record: Record, topics: dict[str, Topic]) -> Envelope:
    """Decode a record of one of these topics (by name).

    Raises:
        MalformedEvent: the record does not match its topic's schema. The message names the field and never quotes the
            payload.
        TooLarge: the value exceeds the limit of its topic.
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
    """An event with the valid fields of a record that `decode` refuses; None if they do not identify a job.

    Its id is derived from the record's position, so that a corrected event with the same `ce_id` is no duplicate of it.
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
        return None  # no job could be derived from it
    root = _root(record) or identity(record, data)
    return Envelope(id=identity(record), type=kind, data=data, record=record, root=root)


#: Placeholders for required fields that an upload lacks. A job that has them is never fetched.
UNREADABLE_URI, UNREADABLE_NAME = "unreadable://upload", "audio"


def _salvaged_upload(fields: dict[str, Any]) -> AudioUploaded | None:
    upload = {"audio_uri": UNREADABLE_URI, "filename": UNREADABLE_NAME, "tenant_id": fields.get("tenant_id")}
    id, reference = fields.get("job_id"), fields.get("reference")
    # An id that is not a UUID serves as the reference, as in a valid upload.
    id_as_reference = None if id is None or (isinstance(id, str) and ids.canonical_uuid(id)) else id
    candidates: list[dict[str, Any]] = [
        {"job_id": id, "reference": reference},
        {"job_id": id},
        {"reference": reference},
        {"reference": id_as_reference},
    ]
    complete = [names for names in candidates if None not in names.values()]
    names = next((n for n in [*complete, {}] if _validated(AudioUploaded, upload | n) is not None), None)
    if names is None:
        return None
    upload |= names
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
        problems = exc.errors(include_input=False)[:8]
        raise MalformedEvent("; ".join(_field_error(e["loc"], e["msg"]) for e in problems)) from None
    except (ValueError, RecursionError) as exc:
        raise MalformedEvent(f"not a JSON object: {type(exc).__name__}") from None


def _read(value: bytes, model: type[Data]) -> Data:
    try:
        return model.model_validate_json(value)
    except ValidationError as exc:
        if exc.errors(include_input=False, include_url=False)[0]["type"] != "json_invalid":
            raise
        # Producers cut texts in the middle of an emoji and send byte order marks; pydantic's parser refuses both.
        parsed = _parsed(value)
        if parsed is None:
            raise
        return model.model_validate(texts.storable_json(parsed))


def _parsed(value: bytes | None) -> dict[str, Any] | None:
    """The JSON object in a value, read by Python's own parser, which is more lenient than pydantic's."""
    try:
        parsed = json.loads((value or b"").decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _field_error(location: tuple[int | str, ...], problem: str) -> str:
    path = ".".join(str(part)[:60] for part in location)
    return f"{path}: {problem}" if path else problem


def _count(record: Record, header: str) -> int:
    text = record.header(header) or "0"
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def identity(record: Record, data: Data | None = None) -> UUID:
    """The event id of a record: equal for every delivery of the same event; see `schemas.ids`."""
    ce_id = (record.header("ce_id") or "").strip()
    source = record.header("ce_source") or ""
    if ce_id and source == SOURCE and record.topic not in INGRESS:
        own = _uuid(ce_id)
    elif ce_id and data is not None:
        own = ids.ingress_id(getattr(data, "tenant_id", ""), source, ce_id, _subject(data))
    else:
        own = None
    id = own or ids.record_id(*record.origin, record.value)
    replay = _count(record, "ce_replay")
    return ids.event_id(id, "replay", replay) if replay else id


def _subject(data: Data) -> str:
    """The fields that distinguish what a producer asks for, or answers, from others of it; empty for other events."""
    if isinstance(data, RecognitionAnswered):
        return data.marker
    if isinstance(data, ConversationRequested):
        return data.conversation_id
    if not isinstance(data, AudioUploaded):
        return ""
    return "\x1f".join((data.job_id or "", data.reference or "", data.audio_uri))


def _root(record: Record) -> UUID | None:
    """The id of the original event as `messages.again` wrote it; never taken from an external producer."""
    return _uuid(record.header(ROOT_HEADER) or "") if record.topic not in INGRESS else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
