"""What is said of many calls, read as their tenant."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.summaries import ItemKind, SummaryItem
from sinks.ports.reading.overviews import CallFacts, Overviews
from sinks.postgres.reader import Reader
from sinks.postgres.sql.tables import SUMMARY_ITEMS


class PostgresOverviews(Overviews):
    """`Overviews` through the reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def call_facts(self, tenant: str, job_ids: Sequence[str]) -> list[CallFacts]:
        """Those of these jobs that there are."""
        return [CallFacts(**row) for row in await self._reader.read(tenant, "read_call_facts", list(job_ids))]

    async def items_of_calls(
        self, tenant: str, job_ids: Sequence[str], kind: ItemKind, limit: int
    ) -> list[SummaryItem]:
        """Items of their summaries."""
        rows = await self._reader.read(tenant, "read_items_of_calls", kind, list(job_ids), limit)
        return list(map(SUMMARY_ITEMS.read, rows))
