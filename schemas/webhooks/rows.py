"""The rows of webhooks: a tenant's endpoints, deliveries to them, and attempts at these."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

#: `pending`: is, or will be, tried; `failed`: tried for a day in vain, until it is replayed.
DeliveryState = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL to which a tenant has its events sent. Its secrets are rows that HTTP can write and not read."""

    tenant_id: str
    webhook_id: str
    url: str
    #: Of `schemas.webhooks.events.EVENT_TYPES`.
    events: list[str]
    description: str = ""
    #: Whether the tenant has it switched on. What happens while it is off is not delivered, now or later.
    active: bool = True
    #: The caller who made it.
    created_by: str = ""
    created_at: datetime | None = None
    #: Since when every attempt has failed; None after a success.
    failing_since: datetime | None = None
    #: Since when nothing is sent, because attempts failed for a day or it answered 410. What happens meanwhile waits.
    paused_at: datetime | None = None
    paused_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one endpoint."""

    id: int
    tenant_id: str
    webhook_id: str
    #: The `webhook-id` of every attempt.
    event_id: str
    type: str
    job_id: str | None
    body: str
    state: DeliveryState = "pending"
    #: Failed attempts since it was made, or replayed.
    failures: int = 0
    #: When it is tried next; while it is tried, when another worker may take it over.
    due_at: datetime | None = None
    created_at: datetime | None = None
    delivered_at: datetime | None = None
    #: Rises with every claim; only the newest may write.
    token: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to an endpoint, and its answer."""

    at: datetime | None = None
    #: The HTTP status; None if there was no answer.
    status: int | None
    duration_ms: float
    #: The beginning of the answer's body.
    answer: str = ""
    #: Why it failed; None if it did not.
    error: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the endpoint has accepted the event."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that one worker attempts now."""

    delivery: Delivery
    url: str
    #: All secrets that are valid, the newest first, as they are stored: see `schemas.accounts.sealing`.
    secrets: tuple[str, ...] = field(repr=False)
