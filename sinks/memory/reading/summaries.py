"""The double of items of summaries."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.summaries import SummaryItem
from sinks.memory.database import MemoryDatabase
from sinks.ports.reading.summaries import FoundItem, ItemFilter, ItemPlace, SummaryItems


@dataclass(frozen=True)
class MemorySummaryItems(SummaryItems):
    """`SummaryItems` on the double of the database."""

    database: MemoryDatabase

    async def summary_items(
        self, tenant: str, which: ItemFilter, limit: int, behind: ItemPlace | None = None
    ) -> list[FoundItem]:
        """A page of items."""
        items = [item for item in self.database.summary_items if item.tenant_id == tenant and _is_wanted(item, which)]
        items.sort(key=_place)
        if behind is not None:
            last = (-behind.created_at.timestamp(), behind.job_id, behind.number)
            items = [item for item in items if _place(item) > last]
        return [FoundItem(item, await self._is_current(item)) for item in items[:limit]]

    async def _is_current(self, item: SummaryItem) -> bool:
        job = await self.database.job(item.tenant_id, item.job_id)
        return job is not None and (job.run, job.transcript_version) == (item.run, item.transcript_version)


def _is_wanted(item: SummaryItem, which: ItemFilter) -> bool:
    filters = {"kind": which.kind, "lookup": which.lookup, "label": which.label, "job_id": which.job_id}
    return all(value is None or getattr(item, name) == value for name, value in filters.items())


def _place(item: SummaryItem) -> tuple[float, str, int]:
    if item.created_at is None:
        raise ValueError("every stored item was written at some time")
    return -item.created_at.timestamp(), item.job_id, item.number
