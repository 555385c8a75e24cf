"""Endpoints and deliveries as they are shown, and the parameters that name them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BeforeValidator, Field

from schemas.errors import NotFound
from schemas.events.base import Data
from schemas.webhooks.events import EventType
from schemas.webhooks.rows import Attempt, Delivery, DeliveryState, Endpoint
from sinks.ports.webhooks.endpoints import WebhookEndpoints
from web.parameters import OfTenant

NO_WEBHOOK: Final = "there is no such webhook"
NO_DELIVERY: Final = "there is no such delivery"


class OfWebhook(OfTenant):
    """Names an endpoint."""

    webhook: str = Field(max_length=64)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise NotFound(NO_DELIVERY)
    return int(text)


class OfDelivery(OfWebhook):
    """Names a delivery."""

    delivery: Annotated[int, BeforeValidator(_number)]


async def found(webhooks: WebhookEndpoints, names: OfWebhook) -> Endpoint:
    """The endpoint that a request names. Raises NotFound."""
    endpoint = await webhooks.webhook(names.tenant, names.webhook)
    if endpoint is None:
        raise NotFound(NO_WEBHOOK)
    return endpoint


class WebhookView(Data):
    """An endpoint."""

    id: str
    url: str
    events: list[EventType]
    description: str
    status: Literal["active", "off", "paused"] = Field(
        description="off: you have switched it off, and what happens meanwhile is not delivered; paused: see "
        "`paused_reason`, nothing is sent, and what happens meanwhile waits until you send `active: true`"
    )
    failing_since: datetime | None = Field(description="since when every attempt has failed")
    paused_at: datetime | None
    paused_reason: str | None
    created_at: datetime | None
    created_by: str = Field(description="the API key that made it")


class NewWebhookView(WebhookView):
    """An endpoint with its secret, which is shown this once."""

    secret: str = Field(description="signs what is sent, by the Standard Webhooks specification; keep it")


class WebhookList(Data):
    """A tenant's endpoints."""

    webhooks: list[WebhookView]


class SecretView(Data):
    """A new secret, which is shown this once."""

    secret: str
    previous_valid_s: int = Field(description="seconds for which the secret before it is used, too")


def webhook_view(endpoint: Endpoint) -> WebhookView:
    """An endpoint as it is shown."""
    status = "off" if not endpoint.active else "paused" if endpoint.paused_at else "active"
    same = {name: getattr(endpoint, name) for name in WebhookView.model_fields if name not in {"id", "status"}}
    return WebhookView.model_validate({"id": endpoint.webhook_id, "status": status, **same})


class DeliveryView(Data):
    """An event for an endpoint, and how far it is."""

    id: str
    webhook_id: str
    event_id: str = Field(description="the `webhook-id` of every attempt")
    type: str
    job_id: str | None
    status: DeliveryState
    failures: int = Field(description="failed attempts since it was made, or replayed")
    next_attempt_at: datetime | None = Field(description="null when it has ended")
    created_at: datetime | None
    delivered_at: datetime | None


class AttemptView(Data):
    """A request and its answer."""

    at: datetime | None
    status: int | None = Field(description="the HTTP status of the answer; null if there was none")
    duration_ms: float
    answer: str = Field(description="the beginning of its body, 4 kB at most")
    error: str | None = Field(description="why the attempt failed")


class DeliveryDetail(DeliveryView):
    """A delivery with what is sent and the newest attempts."""

    body: dict[str, Any] = Field(description="the CloudEvent that is sent")
    attempts: list[AttemptView] = Field(description="the newest first, 50 at most")


class DeliveryPage(Data):
    """Deliveries to an endpoint, the newest first."""

    deliveries: list[DeliveryView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class Replayed(Data):
    """What is delivered again."""

    replayed: int


def _fields(delivery: Delivery) -> dict[str, Any]:
    names = ("webhook_id", "event_id", "type", "job_id", "failures", "created_at", "delivered_at")
    due = delivery.due_at if delivery.state == "pending" else None
    of = {"id": str(delivery.id), "status": delivery.state, "next_attempt_at": due}
    return of | {name: getattr(delivery, name) for name in names}


def delivery_view(delivery: Delivery) -> DeliveryView:
    """A delivery as it is listed."""
    return DeliveryView(**_fields(delivery))


def delivery_detail(delivery: Delivery, attempts: list[Attempt]) -> DeliveryDetail:
    """A delivery with its attempts."""
    shown = [AttemptView(**{name: getattr(one, name) for name in AttemptView.model_fields}) for one in attempts]
    return DeliveryDetail(**_fields(delivery), body=orjson.loads(delivery.body), attempts=shown)


_AT: Final = "2026-05-01T12:00:00Z"

WEBHOOK_EXAMPLE: Final = {
    "id": "wh_0d6b2a6e7c3f4d54a1f0c7b6a9e81234",
    "url": "https://example.com/concord",
    "events": ["job.completed", "job.failed"],
    "description": "our CRM",
    "status": "active",
    "failing_since": None,
    "paused_at": None,
    "paused_reason": None,
    "created_at": _AT,
    "created_by": "environment:acme",
}
SECRET_EXAMPLE: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw4ZFvAiDXYIA="  # noqa: S105 -- an example
DELIVERY_EXAMPLE: Final = {
    "id": "4711",
    "webhook_id": WEBHOOK_EXAMPLE["id"],
    "event_id": "1b1c2f6e-9d0e-5a53-9d0e-c0c0bd1a7a11",
    "type": "job.failed",
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "status": "pending",
    "failures": 1,
    "next_attempt_at": _AT,
    "created_at": _AT,
    "delivered_at": None,
}
DETAIL_EXAMPLE: Final = DELIVERY_EXAMPLE | {
    "body": {"specversion": "1.0", "id": DELIVERY_EXAMPLE["event_id"], "type": "job.failed", "data": {"code": "stuck"}},
    "attempts": [{"at": _AT, "status": 500, "duration_ms": 31.5, "answer": "oops", "error": "it answered 500"}],
}
