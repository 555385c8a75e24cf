"""Uploads that wait to be fetched, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from schemas import topics
from schemas.ids import Key
from sinks.ports.uploads import Uploads, fair_share
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.queries import SQL


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
        async with self._transaction() as db:
            # Two statements: the second one sees what the last holder of these locks has admitted.
            locked = [row["tenant_id"] for row in await db.fetch(SQL["lock_limited_tenants"])]
            room = {row["tenant_id"]: row["room"] for row in await db.fetch(SQL["room_of_tenants"], locked)}
            shares = list(held), list(held.values()), list(room), list(room.values())
            rows = await db.fetch(SQL["upload_heads"], free, *shares)
            chosen = sorted(fair_share([(row["tenant_id"], row["job_id"]) for row in rows], held, free, room))
            if not chosen:
                return []
            admitted = await db.fetch(SQL["admit_uploads"], *by_column(chosen, 2), topics.INTAKE_DUE.name)
            return [(row["tenant_id"], row["job_id"]) for row in admitted]
