"""A language model's answers about disputed words, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.jobs.rows import Adjudication
from sinks.ports.providers.adjudications import Adjudications
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.tables import ADJUDICATIONS


class PostgresAdjudications(PostgresPort, Adjudications):
    """`Adjudications` on a pool."""

    async def adjudications(
        self, tenant_id: str, job_id: str, run: int, questions: Sequence[str]
    ) -> list[Adjudication]:
        """The tenant's answers to these questions, and the faults of this run."""
        rows = await self._fetch("adjudications", tenant_id, job_id, run, list(questions))
        return [ADJUDICATIONS.read(row) for row in rows]

    async def keep_adjudications(self, rows: Sequence[Adjudication]) -> None:
        """Keep answers for the tenant and faults for the run."""
        if rows:
            last = {(row.tenant_id, row.question): row for row in rows}
            await self._fetch("keep_adjudications", *ADJUDICATIONS.arguments(last[key] for key in sorted(last)))
