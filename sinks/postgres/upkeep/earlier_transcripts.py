"""Completed jobs that were never indexed, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.jobs.rows import Job
from sinks.ports.upkeep.earlier_transcripts import EarlierTranscripts
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.tables import JOBS


class PostgresEarlierTranscripts(PostgresPort, EarlierTranscripts):
    """`EarlierTranscripts` on a pool."""

    async def never_indexed(self, limit: int, most_open: int) -> Sequence[Job]:
        """Such jobs, of all tenants in turn."""
        return list(map(JOBS.read, await self._fetch("never_indexed", limit, most_open)))
