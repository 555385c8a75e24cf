"""Entries of the audit log about changes of a tenant's keys, settings and webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import AUDIT_LOG

if TYPE_CHECKING:
    from schemas.jobs.rows import AuditEntry


async def note(db: Any, entry: AuditEntry) -> None:
    """Write the entry in the transaction of what it is about."""
    await db.execute(SQL["insert_audit"], *AUDIT_LOG.arguments([entry]))
