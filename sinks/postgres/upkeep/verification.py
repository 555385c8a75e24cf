"""What `concord verify` reads from PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.ids import Key
from sinks.ports.upkeep.verification import Verification
from sinks.postgres.connection.port import PostgresPort, by_column


class PostgresVerification(PostgresPort, Verification):
    """`Verification` on a pool."""

    async def unended_requests(self, limit: int) -> list[Any]:
        """Requests of ended runs whose own end is not known."""
        return await self._fetch("unended_requests", limit)

    async def without_transcript(self, limit: int) -> list[Any]:
        """Completed jobs that have no transcript."""
        return await self._fetch("without_transcript", limit)

    async def files_after(self, tenant_id: str, job_id: str, run: int, kind: str, limit: int) -> list[Any]:
        """A page of stored files by their key."""
        return await self._fetch("files_after", tenant_id, job_id, run, kind, limit)

    async def known_blobs(self, keys: Sequence[Key]) -> list[Any]:
        """What these jobs refer to."""
        return await self._fetch("known_blobs", *by_column(keys, 2))
