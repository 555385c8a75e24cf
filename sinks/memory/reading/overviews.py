"""The double of what is said of many calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.summaries import ItemKind, SummaryItem
from sinks.memory.database import MemoryDatabase
from sinks.ports.reading.overviews import CallFacts, Overviews


@dataclass(frozen=True)
class MemoryOverviews(Overviews):
    """`Overviews` on the double of the database."""

    database: MemoryDatabase

    async def call_facts(self, tenant: str, job_ids: Sequence[str]) -> list[CallFacts]:
        """Those of these jobs that there are."""
        jobs = [job for id in job_ids if (job := await self.database.job(tenant, id)) is not None]
        rows = [self.database.enrichments.get((*job.key, job.run, "summary")) for job in jobs]
        return [
            CallFacts(job.job_id, job.duration_ms, (row.result or {}).get("sentiment") if row else None)
            for job, row in zip(jobs, rows, strict=True)
        ]

    async def items_of_calls(
        self, tenant: str, job_ids: Sequence[str], kind: ItemKind, limit: int
    ) -> list[SummaryItem]:
        """Items of their summaries."""
        found = [
            item
            for item in self.database.summary_items
            if item.tenant_id == tenant and item.kind == kind and item.job_id in job_ids
        ]
        found.sort(
            key=lambda item: (-(item.created_at.timestamp() if item.created_at else 0), item.job_id, item.number)
        )
        return found[:limit]
