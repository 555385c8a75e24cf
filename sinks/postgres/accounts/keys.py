"""API keys on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from schemas.accounts.keys import MOST_KEYS, ApiKey, NewKey
from sinks.coalesce import Coalesce
from sinks.ports.accounts.keys import Keys
from sinks.postgres.connection.port import PostgresPort
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
        return _first(await self._fetch("add_key", *API_KEYS.values([key])[0], MOST_KEYS))

    async def key(self, tenant: str | None, key_id: str) -> ApiKey | None:
        """One key of this owner."""
        return _first(await self._fetch("key", tenant, key_id))

    async def keys(self, tenant: str | None, limit: int, before: tuple[datetime, str] | None = None) -> list[ApiKey]:
        """A page of this owner's keys, newest first."""
        at, key_id = before or (None, None)
        return [API_KEYS.read(row) for row in await self._fetch("keys", tenant, at, key_id, limit)]

    async def revoke_key(self, tenant: str | None, key_id: str, by: str) -> bool:
        """Revoke a key at once."""
        return bool(await self._fetch("revoke_key", tenant, key_id, by))

    async def rotate_key(self, tenant: str | None, key_id: str, new: NewKey, grace_s: float, by: str) -> ApiKey | None:
        """Replace a valid key, in one statement."""
        values = (new.id, new.prefix, new.hash, by, float(grace_s), MOST_KEYS)
        return _first(await self._fetch("rotate_key", tenant, key_id, *values))

    async def touch_keys(self, key_ids: Collection[str]) -> None:
        """These keys are used now."""
        await self._fetch("touch_keys", list(key_ids))


def _first(rows: Sequence[Any]) -> ApiKey | None:
    return API_KEYS.read(rows[0]) if rows else None
