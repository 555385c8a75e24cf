"""Tenants' settings on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from schemas.accounts.changes import account_change, changed_settings
from schemas.accounts.settings import AccountSettings, SettingsVersion
from sinks.coalesce import Coalesce
from sinks.ports.accounts.settings import StoredSettings
from sinks.postgres.accounts.audit import note
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL


class PostgresSettings(PostgresPort, StoredSettings):
    """`StoredSettings` on a pool."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        super().__init__(pool, shards=shards)
        self._settings = Coalesce(self._many_settings)

    async def account_settings(self, tenant: str) -> SettingsVersion:
        """The tenant's settings."""
        return await self._settings(tenant)

    async def _many_settings(self, tenants: Sequence[str]) -> list[SettingsVersion]:
        stored = {row["tenant_id"]: _version(row) for row in await self._fetch("account_settings", list(tenants))}
        return [stored.get(tenant, SettingsVersion()) for tenant in tenants]

    async def save_account_settings(
        self, tenant: str, settings: AccountSettings, expected: int, by: str
    ) -> SettingsVersion | None:
        """Replace the settings if nobody else has."""
        values = settings.model_dump(mode="json", exclude_none=True)
        async with self._transaction() as db:
            # Locked before it is replaced: the entry tells what this change has changed.
            before = await db.fetchrow(SQL["lock_account_settings"], tenant)
            row = await db.fetchrow(SQL["save_account_settings"], tenant, values, expected, by)
            if row is None:
                return None
            saved = _version(row)
            names = changed_settings(_version(before).settings if before else AccountSettings(), saved.settings)
            of = {"version": saved.version, "changed": names}
            await note(db, account_change(tenant, "settings", "changed", by, None, of))
        return saved


def _version(row: Mapping[str, Any]) -> SettingsVersion:
    # A setting that a newer worker has stored, and this one does not know, does not hold here yet.
    known = {name: value for name, value in row["settings"].items() if name in AccountSettings.model_fields}
    return SettingsVersion(AccountSettings.model_validate(known), row["version"], row["updated_by"], row["updated_at"])
