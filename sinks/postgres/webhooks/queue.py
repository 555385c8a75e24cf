"""Deliveries on PostgreSQL: how they get there, and how workers share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from schemas.accounts.changes import account_change
from schemas.messages import Message
from schemas.webhooks.events import PAUSED, Announcement, announcements, of_endpoint
from schemas.webhooks.retry import verdict
from schemas.webhooks.rows import Attempt, Claim
from sinks.ports.uploads import fair_share
from sinks.ports.webhooks.queue import OF_ENDPOINT, WebhookQueue
from sinks.ports.webhooks.secrets import UNSIGNED
from sinks.postgres.accounts.audit import note
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import WEBHOOK_DELIVERIES, WEBHOOKS


class PostgresWebhookQueue(PostgresPort, WebhookQueue):
    """`WebhookQueue` on a pool."""

    async def claim_deliveries(
        self, tenants: Mapping[str, int], endpoints: Mapping[str, int], free: int, lease_s: float
    ) -> list[Claim]:
        """Claim due deliveries."""
        rows = await self._fetch("delivery_heads", list(endpoints), list(endpoints.values()), OF_ENDPOINT)
        chosen = fair_share([(row["tenant_id"], str(row["id"])) for row in rows], tenants, free)
        if not chosen:
            return []
        claimed = await self._fetch("claim_deliveries", [int(id) for _, id in chosen], lease_s)
        return [Claim(WEBHOOK_DELIVERIES.read(row), row["url"], tuple(row["secrets"] or ())) for row in claimed]

    async def record_attempt(self, claim: Claim, attempt: Attempt, retry_after: float | None = None) -> bool:
        """Store an attempt and what follows from it."""
        delivery = claim.delivery
        async with self._transaction() as db:
            row = await db.fetchrow(SQL["lock_delivery"], delivery.webhook_id, delivery.id, delivery.token)
            if row is None:
                return False
            follows = verdict(attempt, delivery.failures, WEBHOOKS.read(row), row["db_now"], retry_after)
            if attempt.is_success:
                await db.execute(SQL["endpoint_answered"], delivery.webhook_id)
            else:
                await db.execute(SQL["endpoint_failed"], delivery.webhook_id, follows.pause)
            await db.execute(SQL["record_delivery"], delivery.id, delivery.token, follows.state, follows.delay_s)
            answer = attempt.status, attempt.duration_ms, attempt.answer, attempt.error
            await db.execute(SQL["record_attempt"], delivery.tenant_id, delivery.id, *answer)
            if follows.pause is not None:
                await _tell_pause(db, claim, follows.pause, row["db_now"])
        return True

    async def pause_unsigned(self, claim: Claim, reason: str) -> bool:
        """Pause the endpoint, because nothing can be signed for it."""
        delivery = claim.delivery
        async with self._transaction() as db:
            row = await db.fetchrow(SQL["lock_delivery"], delivery.webhook_id, delivery.id, delivery.token)
            if row is None:
                return False
            await db.execute(SQL["release_delivery"], delivery.id, delivery.token)
            if WEBHOOKS.read(row).paused_at is None:
                await db.execute(SQL["pause_webhook"], delivery.webhook_id, UNSIGNED + reason)
                await _tell_pause(db, claim, UNSIGNED + reason, row["db_now"])
        return True


async def _tell_pause(db: Any, claim: Claim, reason: str, at: datetime) -> None:
    """Note a pause, and deliver `webhook.paused` to the tenant's other endpoints."""
    of = claim.delivery
    await note(db, account_change(of.tenant_id, "webhooks", "paused", None, of.webhook_id, {"reason": reason}))
    data = {"webhook_id": claim.delivery.webhook_id, "url": claim.url, "reason": reason}
    await announce(db, [of_endpoint(PAUSED, str(uuid4()), claim.delivery.tenant_id, at, data)])


async def announce_messages(db: Any, messages: Sequence[tuple[Message, float]]) -> None:
    """Deliver what messages of the same transaction announce to the endpoints that ask for it."""
    await announce(db, announcements(messages))


async def announce(db: Any, announced: Sequence[Announcement]) -> None:
    """Deliver events to the endpoints that ask for them."""
    if announced:
        rows = [(one.tenant_id, one.event_id, one.type, one.job_id, one.body) for one in announced]
        await db.execute(SQL["announce_events"], *by_column(rows, 5))
