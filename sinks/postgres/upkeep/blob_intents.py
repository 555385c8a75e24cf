"""Blobs that are about to be written, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from schemas.errors import Contended
from schemas.ids import Key
from sinks.coalesce import Coalesce
from sinks.ports.upkeep.blob_intents import BlobIntents
from sinks.postgres.connection.port import PostgresPort, by_column


class PostgresBlobIntents(PostgresPort, BlobIntents):
    """`BlobIntents` on a pool. Blobs of the same moment share a statement."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        super().__init__(pool, shards=shards)
        self._intended = Coalesce(self._intend_blobs)

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Note that a blob is about to be written for a job."""
        await self._intended((*key, uri))

    async def _intend_blobs(self, blobs: Sequence[tuple[str, str, str]]) -> list[None]:
        await self._fetch("intend_blobs", *by_column(blobs, 3))
        return [None] * len(blobs)

    async def hold_blob(self, key: Key, uri: str, seconds: float) -> None:
        """Note that a blob is about to be written, and an orphan after that time."""
        if not await self._fetch("hold_blob", *key, uri, seconds):
            raise Contended("an earlier upload of this recording, which broke off, is being deleted")

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """URIs of intended blobs that no file refers to."""
        await self._fetch("claim_lapsed_blobs")
        rows = await self._fetch("orphan_blobs", settled_s, age_s, limit)
        if wanted := [row["uri"] for row in rows if row["wanted"]]:
            await self.forget_blobs(wanted)
        return [row["uri"] for row in rows if not row["wanted"]]

    async def forget_blobs(self, uris: Sequence[str]) -> None:
        """Remove the notes of these blobs."""
        await self._fetch("forget_blobs", list(uris))
