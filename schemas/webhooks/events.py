"""The events that webhooks announce, and their bodies: CloudEvents 1.0 as JSON, in structured mode.

Each is the public Kafka event with the same id and data; only `persisted` is called `job.completed` here, because it
stands beside `job.failed` for people who never see a topic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

import orjson

from schemas.envelope import SOURCE
from schemas.messages import Message
from schemas.topics import DELIVERED, DOCUMENT, ENRICHMENT_FAILED, FAILED, PERSISTED, REPORT, SUMMARY

#: What an endpoint may ask for; `*` stands for all of them, also for those that come later.
EventType = Literal[
    "*",
    "job.completed",
    "job.failed",
    "transcript.edited",
    "document.generated",
    "summary.generated",
    "report.generated",
    "report.delivered",
    "enrichment.failed",
    "webhook.paused",
]
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)

#: Sent at a tenant's request, whatever the endpoint asks for.
TEST: Final = "webhook.test"

#: Tells a tenant's other endpoints that one of them is paused.
PAUSED: Final = "webhook.paused"

#: By Kafka topic, what its events are called.
TYPES: Final[Mapping[str, str]] = {
    PERSISTED.name: "job.completed",
    FAILED.name: "job.failed",
    "transcript.edited": "transcript.edited",
    DOCUMENT.name: "document.generated",
    SUMMARY.name: "summary.generated",
    REPORT.name: "report.generated",
    DELIVERED.name: "report.delivered",
    ENRICHMENT_FAILED.name: "enrichment.failed",
}

MEDIA_TYPE: Final = "application/cloudevents+json"


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event for those of a tenant's endpoints that ask for its type."""

    tenant_id: str
    #: The `webhook-id`, the same for all endpoints and attempts.
    event_id: str
    type: str
    #: None for an event that is not about a job.
    job_id: str | None
    #: The bytes that are sent and signed, the same at each attempt.
    body: str


def announcements(messages: Sequence[tuple[Message, float]]) -> list[Announcement]:
    """What the messages of a transaction announce, in their order; the float is the delay of each, as in the outbox."""
    return [announced for message, _ in messages if (announced := _announcement(message)) is not None]


def _announcement(message: Message) -> Announcement | None:
    kind = TYPES.get(message.topic)
    if kind is None or message.tenant_id is None or message.value is None:
        return None
    headers = {name: (value or b"").decode(errors="replace") for name, value in message.headers}
    names = ("ce_source", "ce_time", "ce_subject", "traceparent")
    attributes = {name.removeprefix("ce_"): headers[name] for name in names if headers.get(name)}
    body = cloud_event(str(message.id), kind, orjson.Fragment(message.value), attributes)
    return Announcement(message.tenant_id, str(message.id), kind, message.job_id, body)


def of_endpoint(kind: str, event_id: str, tenant_id: str, now: datetime, data: Mapping[str, Any]) -> Announcement:
    """An event about an endpoint, not about a job."""
    body = cloud_event(event_id, kind, {"tenant_id": tenant_id, **data}, {"time": now.isoformat()})
    return Announcement(tenant_id, event_id, kind, None, body)


def cloud_event(id: str, kind: str, data: object, attributes: Mapping[str, str]) -> str:
    """A CloudEvent as JSON."""
    event = {"specversion": "1.0", "id": id, "source": SOURCE, "type": kind, **attributes}
    return orjson.dumps(event | {"datacontenttype": "application/json", "data": data}).decode()
