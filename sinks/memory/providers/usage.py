"""The double of what providers' requests used up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter

from schemas.jobs.rows import Usage
from sinks.memory.state import MemoryState, dump
from sinks.ports.providers.usage import TOKENS, TokensUsed, UsageRows

_USAGE = TypeAdapter(list[Usage])


@dataclass
class MemoryUsage(MemoryState, UsageRows):
    """`UsageRows` in this process."""

    @property
    def usage(self) -> list[Usage]:
        """Every row, in the order of writing."""
        return [row for row, _ in self._usage.values()]

    def usage_times(self) -> list[tuple[Usage, datetime]]:
        """Every row with the time of its writing."""
        return list(self._usage.values())

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up; a row that exists already stays unchanged."""
        dump(_USAGE, list(rows))
        self._keep_usage(rows)

    async def tokens_used(self, tenant_id: str, job_id: str) -> TokensUsed:
        """What the job has used, and its tenant in this month."""
        month = self.clock().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        rows = [(row, at) for row, at in self.usage_times() if row.tenant_id == tenant_id and row.unit == TOKENS]
        of_job = sum(row.quantity for row, _ in rows if row.job_id == job_id)
        return TokensUsed(of_job, sum(row.quantity for row, at in rows if at >= month))

    def _keep_usage(self, rows: Sequence[Usage]) -> None:
        for row in rows:
            key = (row.tenant_id, row.job_id, row.run, row.provider, row.unit, row.ref)
            self._usage.setdefault(key, (row, self.clock()))
