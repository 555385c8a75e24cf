"""The port through which people look for items of summaries over many calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.summaries import ItemKind, SummaryItem


@dataclass(frozen=True, slots=True)
class ItemPlace:
    """The last item of a page: the next page begins behind it."""

    created_at: datetime
    job_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilter:
    """Which items are listed. What is not set excludes none."""

    kind: ItemKind
    #: `SummaryItem.lookup`, whole.
    lookup: str | None = None
    label: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class FoundItem:
    """An item, and whether its summary is that of the transcript's newest version."""

    item: SummaryItem
    is_current: bool


class SummaryItems(Protocol):
    """The items of one tenant's calls. Raises `Unavailable`."""

    async def summary_items(
        self, tenant: str, which: ItemFilter, limit: int, behind: ItemPlace | None = None
    ) -> list[FoundItem]:
        """At most `limit` items, newest first; those of a call in its order."""
