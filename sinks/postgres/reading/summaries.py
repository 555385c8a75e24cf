"""Items of summaries, read as their tenant."""

from __future__ import annotations

from sinks.ports.reading.summaries import FoundItem, ItemFilter, ItemPlace, SummaryItems
from sinks.postgres.reader import Reader
from sinks.postgres.sql.tables import SUMMARY_ITEMS


class PostgresSummaryItems(SummaryItems):
    """`SummaryItems` through the reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def summary_items(
        self, tenant: str, which: ItemFilter, limit: int, behind: ItemPlace | None = None
    ) -> list[FoundItem]:
        """A page of items."""
        place = (behind.created_at, behind.job_id, behind.number) if behind else (None, None, None)
        filters = (which.kind, which.lookup, which.label, which.job_id)
        rows = await self._reader.read(tenant, "read_summary_items", *filters, *place, limit)
        return [FoundItem(SUMMARY_ITEMS.read(row), row["is_current"]) for row in rows]
