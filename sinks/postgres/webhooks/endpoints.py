"""Tenants' endpoints on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.webhooks.events import Announcement
from schemas.webhooks.rows import Attempt, Delivery, DeliveryState, Endpoint
from sinks.ports.webhooks.endpoints import ATTEMPTS, MAX_ENDPOINTS, OVERLAP_S, TooManyEndpoints, WebhookEndpoints
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
        return WEBHOOKS.read(row)

    async def webhooks(self, tenant: str) -> list[Endpoint]:
        """All endpoints."""
        return [WEBHOOKS.read(row) for row in await self._fetch("read_webhooks", tenant, None)]

    async def webhook(self, tenant: str, webhook_id: str) -> Endpoint | None:
        """One endpoint."""
        rows = await self._fetch("read_webhooks", tenant, webhook_id)
        return WEBHOOKS.read(rows[0]) if rows else None

    async def update_webhook(self, endpoint: Endpoint, *, resume: bool) -> Endpoint | None:
        """Replace what may be changed."""
        key = endpoint.tenant_id, endpoint.webhook_id
        changed = endpoint.url, endpoint.events, endpoint.description, endpoint.active
        async with self._transaction() as db:
            row = await db.fetchrow(SQL["update_webhook"], *key, *changed, resume)
            if resume:
                await db.execute(SQL["hurry_deliveries"], *key)
        return WEBHOOKS.read(row) if row else None

    async def delete_webhook(self, tenant: str, webhook_id: str) -> bool:
        """Delete it."""
        return bool(await self._fetch("delete_webhook", tenant, webhook_id))

    async def rotate_secret(self, tenant: str, webhook_id: str, secret: str) -> bool:
        """Sign with this secret."""
        async with self._transaction() as db:
            if not await db.fetch(SQL["read_webhooks"], tenant, webhook_id):
                return False
            await db.execute(SQL["expire_webhook_secrets"], tenant, webhook_id, OVERLAP_S)
            await db.execute(SQL["insert_webhook_secret"], tenant, webhook_id, secret)
        return True

    async def add_delivery(self, webhook_id: str, announced: Announcement) -> Delivery:
        """Deliver an event to this endpoint alone."""
        of = announced.tenant_id, webhook_id, announced.event_id, announced.type, announced.body
        return WEBHOOK_DELIVERIES.read((await self._fetch("insert_delivery", *of))[0])

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

    async def replay(self, tenant: str, webhook_id: str, id: int | None = None) -> int:
        """Deliver again."""
        return len(await self._fetch("replay_deliveries", tenant, webhook_id, id))
