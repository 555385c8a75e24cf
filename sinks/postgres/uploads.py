"""Uploads that wait to be fetched, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from schemas import topics
from schemas.ids import Key
from sinks.ports.uploads import Uploads, fair_share
from sinks.postgres.connection.port import PostgresPort, by_column


class PostgresUploads(PostgresPort, Uploads):
    """`Uploads` on a pool."""

    async def waiting_uploads(self) -> dict[str, int]:
        """Tenants that have uploads waiting, with the urgency of the most urgent one."""
        waiting: dict[str, int] = {}
        for row in await self._fetch("upload_lanes"):
            waiting.setdefault(row["tenant_id"], row["urgency"])
        return waiting

    async def admit_uploads(self, held: Mapping[str, int], free: int) -> list[Key]:
        """Admit uploads to free slots, and make their events due."""
        rows = await self._fetch("upload_heads", free, list(held), list(held.values()))
        chosen = sorted(fair_share([(row["tenant_id"], row["job_id"]) for row in rows], held, free))
        if not chosen:
            return []
        admitted = await self._fetch("admit_uploads", *by_column(chosen, 2), topics.INTAKE_DUE.name)
        return [(row["tenant_id"], row["job_id"]) for row in admitted]
