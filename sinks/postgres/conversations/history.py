"""Lists of conversations on PostgreSQL, under row-level security."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from schemas.conversations.processing import Status
from schemas.conversations.rows import ConversationDay, ConversationDays, ConversationRow
from sinks.ports.conversations.history import ConversationHistory
from sinks.ports.reads import Cursor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sinks.postgres.reader import Reader

#: Conversations that one page looks at, where they have to be in some status.
SCANNED: Final = 1_000

#: In place of the first page's cursor: behind every time.
_LAST: Final = Cursor(datetime(9999, 1, 1, tzinfo=UTC), "")


class PostgresConversationHistory(ConversationHistory):
    """`ConversationHistory` over a reader's connections and slots."""

    def __init__(self, reader: Reader) -> None:
        self._read = reader.read

    async def conversations(
        self, tenant: str, statuses: frozenset[Status] = frozenset(), *, limit: int, before: Cursor | None = None
    ) -> tuple[list[ConversationRow], Cursor | None]:
        """A page of the tenant's conversations."""
        place, scanned = before or _LAST, SCANNED if statuses else limit + 1
        asked = (place.created_at, place.job_id, sorted(statuses), scanned, limit + 1)
        records = await self._read(tenant, "list_conversations", *asked)
        rows = [_row(record) for record in records if not statuses or record["status"] in statuses][:limit]
        if len(records) > limit and len(rows) == limit:
            return rows, Cursor(rows[-1].created_at, rows[-1].job_id)
        last = records[-1] if records and records[-1]["n"] == scanned else None
        return rows, Cursor(last["created_at"], last["job_id"]) if last else None

    async def failed_conversations(
        self, tenant: str, since: datetime, *, limit: int, before: Cursor | None = None
    ) -> tuple[list[ConversationRow], Cursor | None]:
        """A page of those that have failed since then."""
        place = before or _LAST
        asked = (since, place.created_at, place.job_id, limit + 1)
        rows = [_row(record) for record in await self._read(tenant, "failed_conversations", *asked)]
        end = rows[limit - 1].completed_at if len(rows) > limit else None
        return rows[:limit], Cursor(end, rows[limit - 1].job_id) if end else None

    async def conversation_days(self, tenant: str, since: datetime, until: datetime) -> ConversationDays:
        """How many there are by day and status."""
        counts, medians = defaultdict[str, dict[Status, int]](dict), dict[str | None, float | None]()
        for row in await self._read(tenant, "conversation_days", since, until):
            if row["status"] is None:
                medians[row["day"]] = row["median_s"]
            else:
                counts[row["day"]][row["status"]] = row["conversations"]
        days = (ConversationDay(day, by_status, medians[day]) for day, by_status in counts.items())
        return ConversationDays(tuple(days), medians.get(None))


_COLUMNS: Final = tuple(field.name for field in fields(ConversationRow))


def _row(record: Mapping[str, Any]) -> ConversationRow:
    return ConversationRow(**{name: record[name] for name in _COLUMNS})
