"""What providers' requests used up, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.jobs.rows import Usage
from sinks.ports.providers.usage import TOKENS, TokensUsed, UsageRows
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.tables import USAGE


class PostgresUsage(PostgresPort, UsageRows):
    """`UsageRows` on a pool."""

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up; a row that exists already stays unchanged."""
        if rows:
            await self._fetch("record_usage", *USAGE.arguments(rows))

    async def tokens_used(self, tenant_id: str, job_id: str) -> TokensUsed:
        """What the job has used, and its tenant in this month."""
        [row] = await self._fetch("tokens_used", tenant_id, job_id, TOKENS)
        return TokensUsed(row["of_job"], row["of_month"])
