"""API keys on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from schemas.accounts.changes import account_change
from schemas.accounts.keys import MOST_KEYS, ApiKey, NewKey
from sinks.coalesce import Coalesce
from sinks.ports.accounts.keys import Keys
from sinks.postgres.accounts.audit import note
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import API_KEYS


class PostgresKeys(PostgresPort, Keys):
    """`Keys` on a pool. Look-ups of the same moment share a statement."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        super().__init__(pool, shards=shards)
        self._find_key = Coalesce(self._find_keys)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The valid key whose text has this hash."""
        return await self._find_key(digest)

    async def _find_keys(self, digests: Sequence[bytes]) -> list[ApiKey | None]:
        keys = {key.hash: key for key in map(API_KEYS.read, await self._fetch("find_keys", list(digests)))}
        return [keys.get(digest) for digest in digests]

    async def has_keys(self) -> bool:
        """Whether a key was ever made."""
        return bool((await self._fetch("has_keys"))[0][0])

    async def add_key(self, key: ApiKey) -> ApiKey | None:
        """Store a key, if its owner has room for it."""
        async with self._transaction() as db:
            added = _first(await db.fetch(SQL["add_key"], *API_KEYS.values([key])[0], MOST_KEYS))
            if added is not None:
                of = {"name": added.name, "scopes": sorted(added.scopes)}
                await note(db, account_change(added.tenant_id, "keys", "created", added.created_by, added.id, of))
        return added

    async def key(self, tenant: str | None, key_id: str) -> ApiKey | None:
        """One key of this owner."""
        return _first(await self._fetch("key", tenant, key_id))

    async def keys(self, tenant: str | None, limit: int, before: tuple[datetime, str] | None = None) -> list[ApiKey]:
        """A page of this owner's keys, newest first."""
        at, key_id = before or (None, None)
        return [API_KEYS.read(row) for row in await self._fetch("keys", tenant, at, key_id, limit)]

    async def revoke_key(self, tenant: str | None, key_id: str, by: str) -> bool:
        """Revoke a key at once."""
        async with self._transaction() as db:
            row = await db.fetchrow(SQL["revoke_key"], tenant, key_id, by)
            if row is not None and row["was_valid"]:
                await note(db, account_change(tenant, "keys", "revoked", by, key_id))
        return row is not None

    async def rotate_key(self, tenant: str | None, key_id: str, new: NewKey, grace_s: float, by: str) -> ApiKey | None:
        """Replace a valid key, in one statement."""
        values = (new.id, new.prefix, new.hash, by, float(grace_s), MOST_KEYS)
        async with self._transaction() as db:
            added = _first(await db.fetch(SQL["rotate_key"], tenant, key_id, *values))
            if added is not None:
                of = {"new": new.id, "grace_s": float(grace_s)}
                await note(db, account_change(tenant, "keys", "rotated", by, key_id, of))
        return added

    async def touch_keys(self, key_ids: Collection[str]) -> None:
        """These keys are used now."""
        await self._fetch("touch_keys", list(key_ids))


def _first(rows: Sequence[Any]) -> ApiKey | None:
    return API_KEYS.read(rows[0]) if rows else None
