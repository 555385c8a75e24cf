"""Changes of review items on PostgreSQL, each with its entry in the audit log."""

from __future__ import annotations

from typing import Any

from schemas.corrections.rows import ReviewItem
from schemas.jobs.rows import AuditEntry, run_fields
from sinks.ports.corrections.review import ReviewWrites
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import AUDIT_LOG, REVIEW_ITEMS


class PostgresReview(PostgresPort, ReviewWrites):
    """`ReviewWrites` on a pool."""

    async def skip_item(self, tenant: str, id: str, reviewer: str) -> ReviewItem | None:
        """The item as skipped; None if it is done, or there is none."""
        return await self._changed("skip_review_item", "skipped", reviewer, tenant, id, reviewer)

    async def assign_item(self, tenant: str, id: str, assignee: str | None, caller: str) -> ReviewItem | None:
        """The item with its new assignee; None if there is no such item."""
        return await self._changed("assign_review_item", "assigned", caller, tenant, id, assignee)

    async def _changed(self, statement: str, what: str, author: str, *arguments: Any) -> ReviewItem | None:
        async with self._transaction() as db:
            row = await db.fetchrow(SQL[statement], *arguments)
            if row is None:
                return None
            item = REVIEW_ITEMS.read(row)
            entry = AuditEntry(**run_fields(item), step="review", what=what, author=author)
            await db.execute(SQL["insert_audit"], *AUDIT_LOG.arguments([entry]))
            return item
