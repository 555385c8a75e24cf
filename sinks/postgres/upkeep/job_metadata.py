"""Metadata of earlier jobs, on PostgreSQL."""

from __future__ import annotations

from sinks.ports.upkeep.job_metadata import IndexesMetadata
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL


class PostgresJobMetadata(PostgresPort, IndexesMetadata):
    """`IndexesMetadata` on a pool."""

    async def index_metadata(self, jobs: int) -> bool:
        """Index the next jobs in the order of their keys. Another worker's turn is waited for."""
        async with self._transaction() as db:
            place = await db.fetchrow(SQL["lock_missing_metadata"])
            if place is None:
                return False
            last = await db.fetchrow(SQL["index_metadata"], place["after_job"], place["after_tenant"], jobs)
            if last is None:
                await db.execute(SQL["end_missing_metadata"])
                return False
            await db.execute(SQL["advance_missing_metadata"], last["job_id"], last["tenant_id"])
            return True
