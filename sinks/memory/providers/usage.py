"""The double of what providers' requests used up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from schemas.jobs.rows import Usage
from sinks.memory.state import MemoryState, dump
from sinks.ports.providers.usage import UsageRows

_USAGE = TypeAdapter(list[Usage])


@dataclass
class MemoryUsage(MemoryState, UsageRows):
    """`UsageRows` in this process."""

    @property
    def usage(self) -> list[Usage]:
        """Every row, in the order of writing."""
        return list(self._usage.values())

    def usage_times(self) -> list[tuple[Usage, datetime]]:
        """Every row with the time of its writing."""
        return [(row, self._usage_at[key]) for key, row in self._usage.items()]

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up; a row that exists already stays unchanged."""
        dump(_USAGE, list(rows))
        self._keep_usage(rows)

    def _keep_usage(self, rows: Sequence[Usage]) -> None:
        for row in rows:
            key = (row.tenant_id, row.job_id, row.run, row.provider, row.unit, row.ref)
            self._usage.setdefault(key, row)
            self._usage_at.setdefault(key, self.clock())
