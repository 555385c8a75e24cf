"""The double of lists of conversations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING

from schemas.conversations.names import conversation_of
from schemas.conversations.processing import DONE, Status, processing
from schemas.conversations.rows import ConversationDay, ConversationDays, ConversationRow
from sinks.ports.conversations.history import ConversationHistory
from sinks.ports.reads import Cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from schemas.jobs.rows import Job
    from sinks.memory.database import MemoryDatabase

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class MemoryConversationHistory(ConversationHistory):
    """`ConversationHistory` on the double of the database."""

    database: MemoryDatabase

    async def conversations(
        self, tenant: str, statuses: frozenset[Status] = frozenset(), *, limit: int, before: Cursor | None = None
    ) -> tuple[list[ConversationRow], Cursor | None]:
        """A page of the tenant's conversations."""
        wanted = [row for row in self._rows(tenant) if not statuses or row.status in statuses]
        return _page(wanted, lambda row: row.created_at, limit, before)

    async def failed_conversations(
        self, tenant: str, since: datetime, *, limit: int, before: Cursor | None = None
    ) -> tuple[list[ConversationRow], Cursor | None]:
        """A page of those that have failed since then."""
        failed = [row for row in self._rows(tenant) if row.status == "failed" and (row.completed_at or _NEVER) >= since]
        return _page(failed, lambda row: row.completed_at or _NEVER, limit, before)

    async def conversation_days(self, tenant: str, since: datetime, until: datetime) -> ConversationDays:
        """How many there are by day and status."""
        rows = [row for row in self._rows(tenant) if since <= row.created_at < until]
        days = groupby(sorted(rows, key=_day), _day)
        return ConversationDays(tuple(_of_day(day, list(of_day)) for day, of_day in days), _median_s(rows))

    def _rows(self, tenant: str) -> list[ConversationRow]:
        jobs = [job for job in self.database.all_jobs() if job.tenant_id == tenant]
        return [self._row(job, id) for job in jobs if (id := conversation_of(job)) is not None]

    def _row(self, job: Job, conversation_id: str) -> ConversationRow:
        state = processing(job, has_files=any(of[:2] == job.key for of in self.database.files))
        return ConversationRow(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            run=job.run,
            conversation_id=conversation_id,
            email_id=next(iter(job.options.get("mail_to") or ()), None),
            status=state.status,
            progress=state.progress,
            current_step=state.current_step,
            error_message=state.error,
            error_code=state.code,
            created_at=job.created_at or _NEVER,
            updated_at=job.updated_at or _NEVER,
            completed_at=state.ended_at,
        )


def _page(
    rows: Iterable[ConversationRow], time: Callable[[ConversationRow], datetime], limit: int, before: Cursor | None
) -> tuple[list[ConversationRow], Cursor | None]:
    ordered = sorted(sorted(rows, key=lambda row: row.job_id), key=time, reverse=True)
    if before is not None:
        place = (-before.created_at.timestamp(), before.job_id)
        ordered = [row for row in ordered if (-time(row).timestamp(), row.job_id) > place]
    page = ordered[:limit]
    return page, Cursor(time(page[-1]), page[-1].job_id) if len(ordered) > limit else None


def _day(row: ConversationRow) -> str:
    return f"{row.created_at:%Y-%m-%d}"


def _of_day(day: str, rows: list[ConversationRow]) -> ConversationDay:
    return ConversationDay(day, Counter(row.status for row in rows), _median_s(rows))


def _median_s(rows: list[ConversationRow]) -> float | None:
    done = [row for row in rows if row.status in DONE and row.completed_at is not None]
    seconds = sorted((row.completed_at - row.created_at).total_seconds() for row in done if row.completed_at)
    return seconds[(len(seconds) - 1) // 2] if seconds else None
