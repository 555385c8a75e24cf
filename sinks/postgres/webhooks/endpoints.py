"""Tenants' endpoints on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.accounts.changes import account_change
from schemas.webhooks.audit import changes_of, of_webhook, told_of
from schemas.webhooks.events import Announcement
from schemas.webhooks.rows import Attempt, Delivery, DeliveryState, Endpoint
from sinks.ports.webhooks.endpoints import ATTEMPTS, MAX_ENDPOINTS, OVERLAP_S, TooManyEndpoints, WebhookEndpoints
from sinks.postgres.accounts.audit import note
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import WEBHOOK_DELIVERIES, WEBHOOKS


class PostgresWebhookEndpoints(PostgresPort, WebhookEndpoints):
    """`WebhookEndpoints` on a pool."""

    async def create_webhook(self, endpoint: Endpoint, secret: str) -> Endpoint:
        """Store a new endpoint."""
        async with self._transaction() as db:
            await db.execute(SQL["lock_webhooks"], endpoint.tenant_id)
            if len(await db.fetch(SQL["read_webhooks"], endpoint.tenant_id, None)) >= MAX_ENDPOINTS:
                raise TooManyEndpoints
            row = await db.fetchrow(SQL["insert_webhook"], *WEBHOOKS.values([endpoint])[0])
            await db.execute(SQL["insert_webhook_secret"], endpoint.tenant_id, endpoint.webhook_id, secret)
            await note(db, of_webhook("created", endpoint.created_by, endpoint, told_of(endpoint)))
        return WEBHOOKS.read(row)

    async def webhooks(self, tenant: str) -> list[Endpoint]:
        """All endpoints."""
        return [WEBHOOKS.read(row) for row in await self._fetch("read_webhooks", tenant, None)]

    async def webhook(self, tenant: str, webhook_id: str) -> Endpoint | None:
        """One endpoint."""
        rows = await self._fetch("read_webhooks", tenant, webhook_id)
        return WEBHOOKS.read(rows[0]) if rows else None

    async def update_webhook(self, endpoint: Endpoint, *, resume: bool, by: str) -> Endpoint | None:
        """Replace what may be changed."""
        key = endpoint.tenant_id, endpoint.webhook_id
        changed = endpoint.url, endpoint.events, endpoint.description, endpoint.active
        async with self._transaction() as db:
            before = await db.fetchrow(SQL["lock_webhook"], *key)
            row = await db.fetchrow(SQL["update_webhook"], *key, *changed, resume)
            if row is None:
                return None
            if resume:
                await db.execute(SQL["hurry_deliveries"], *key)
            after = WEBHOOKS.read(row)
            if details := changes_of(WEBHOOKS.read(before), after):
                await note(db, of_webhook("changed", by, after, details))
        return after

    async def delete_webhook(self, tenant: str, webhook_id: str, by: str) -> bool:
        """Delete it."""
        async with self._transaction() as db:
            row = await db.fetchrow(SQL["delete_webhook"], tenant, webhook_id)
            if row is None:
                return False
            endpoint = WEBHOOKS.read(row)
            await note(db, of_webhook("deleted", by, endpoint, told_of(endpoint)))
        return True

    async def rotate_secret(self, tenant: str, webhook_id: str, secret: str, by: str) -> bool:
        """Sign with this secret."""
        async with self._transaction() as db:
            row = await db.fetchrow(SQL["lock_webhook"], tenant, webhook_id)
            if row is None:
                return False
            await note(db, of_webhook("secret rotated", by, WEBHOOKS.read(row)))
            await db.execute(SQL["expire_webhook_secrets"], tenant, webhook_id, OVERLAP_S)
            await db.execute(SQL["insert_webhook_secret"], tenant, webhook_id, secret)
        return True

    async def add_delivery(self, webhook_id: str, announced: Announcement, by: str) -> Delivery:
        """Deliver an event to this endpoint alone."""
        of = announced.tenant_id, webhook_id, announced.event_id, announced.type, announced.body
        async with self._transaction() as db:
            delivery = WEBHOOK_DELIVERIES.read(await db.fetchrow(SQL["insert_delivery"], *of))
            await note(db, account_change(of[0], "webhooks", "tested", by, webhook_id, {"delivery": str(delivery.id)}))
        return delivery

    async def deliveries(
        self, tenant: str, webhook_id: str, state: DeliveryState | None, before: int | None, limit: int
    ) -> list[Delivery]:
        """The newest deliveries."""
        rows = await self._fetch("read_deliveries", tenant, webhook_id, state, before, limit)
        return [WEBHOOK_DELIVERIES.read(row) for row in rows]

    async def delivery(self, tenant: str, webhook_id: str, id: int) -> Delivery | None:
        """One delivery."""
        rows = await self._fetch("read_delivery", tenant, webhook_id, id)
        return WEBHOOK_DELIVERIES.read(rows[0]) if rows else None

    async def attempts(self, tenant: str, id: int) -> Sequence[Attempt]:
        """The newest attempts at a delivery."""
        return [Attempt(**row) for row in await self._fetch("read_attempts", tenant, id, ATTEMPTS)]

    async def replay(self, tenant: str, webhook_id: str, by: str, id: int | None = None) -> int:
        """Deliver again."""
        async with self._transaction() as db:
            replayed = len(await db.fetch(SQL["replay_deliveries"], tenant, webhook_id, id))
            if replayed:
                of = {"deliveries": replayed} if id is None else {"delivery": str(id)}
                await note(db, account_change(tenant, "webhooks", "replayed", by, webhook_id, of))
        return replayed
