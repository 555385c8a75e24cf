"""The port of a tenant's endpoints, as its administrators see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from schemas.errors import InvalidInput
from schemas.webhooks.events import Announcement
from schemas.webhooks.rows import Attempt, Delivery, DeliveryState, Endpoint

#: Endpoints of one tenant, at most: each event becomes a row for each of them.
MAX_ENDPOINTS: Final = 20

#: Seconds for which a secret is still valid after it was replaced.
OVERLAP_S: Final = 86_400.0

#: Attempts at a delivery that are shown.
ATTEMPTS: Final = 50


class TooManyEndpoints(InvalidInput):
    """The tenant has as many endpoints as it may have."""

    def __init__(self) -> None:
        super().__init__(f"a tenant may have {MAX_ENDPOINTS} webhooks: change or delete one of them")


class WebhookEndpoints(Protocol):
    """A tenant's endpoints and the history of each. What belongs to another tenant does not exist. A change is noted in
    the tenant's audit log with its author (`by`), in the same transaction.
    """

    async def create_webhook(self, endpoint: Endpoint, secret: str) -> Endpoint:
        """Store a new endpoint, and its secret as the text is: its caller encrypts it. Raises TooManyEndpoints."""

    async def webhooks(self, tenant: str) -> list[Endpoint]:
        """All endpoints, the oldest first."""

    async def webhook(self, tenant: str, webhook_id: str) -> Endpoint | None:
        """One endpoint."""

    async def update_webhook(self, endpoint: Endpoint, *, resume: bool, by: str) -> Endpoint | None:
        """Replace its URL, events, description and whether it is active. `resume` ends a pause; what has waited is due
        within a minute. None if it does not exist.
        """

    async def delete_webhook(self, tenant: str, webhook_id: str, by: str) -> bool:
        """Delete it, with its secrets and history; False if it does not exist."""

    async def rotate_secret(self, tenant: str, webhook_id: str, secret: str, by: str) -> bool:
        """Sign with this secret, which is stored as the text is, and for `OVERLAP_S` also with the one before; False if
        it does not exist.
        """

    async def add_delivery(self, webhook_id: str, announced: Announcement, by: str) -> Delivery:
        """Deliver an event to this endpoint alone, which exists."""

    async def deliveries(
        self, tenant: str, webhook_id: str, state: DeliveryState | None, before: int | None, limit: int
    ) -> list[Delivery]:
        """Deliveries with lower ids than `before`, the newest first."""

    async def delivery(self, tenant: str, webhook_id: str, id: int) -> Delivery | None:
        """One delivery."""

    async def attempts(self, tenant: str, id: int) -> Sequence[Attempt]:
        """The newest attempts at a delivery, the newest first."""

    async def replay(self, tenant: str, webhook_id: str, by: str, id: int | None = None) -> int:
        """Deliver again: one delivery that has ended, or without `id` all that failed; how many."""
