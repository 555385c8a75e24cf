"""Stored secrets on PostgreSQL."""

from __future__ import annotations

from sinks.ports.webhooks.secrets import UNSIGNED, StoredSecret, StoredSecrets
from sinks.postgres.connection.port import PostgresPort


class PostgresStoredSecrets(PostgresPort, StoredSecrets):
    """`StoredSecrets` on a pool."""

    async def stored_secrets(self) -> list[StoredSecret]:
        """All secrets that may still sign."""
        rows = await self._fetch("stored_secrets")
        return [StoredSecret(row["tenant_id"], row["webhook_id"], row["secret"]) for row in rows]

    async def replace_secret(self, secret: StoredSecret, text: str) -> bool:
        """Store another text in its place."""
        return bool(await self._fetch("replace_secret", secret.tenant_id, secret.webhook_id, secret.text, text))

    async def end_unsigned_pause(self, tenant: str, webhook_id: str) -> bool:
        """End a pause because nothing could be signed."""
        return bool(await self._fetch("end_unsigned_pause", tenant, webhook_id, UNSIGNED))
