"""The port of lists of conversations, and of what is counted of them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from schemas.conversations.processing import Status
from schemas.conversations.rows import ConversationDays, ConversationRow
from sinks.ports.reads import Cursor


class ConversationHistory(Protocol):
    """Questions of one tenant, which sees only its own rows.

    Raises:
        Unavailable: the database cannot be reached.
        InvalidInput: the text cannot be a tenant's name.
    """

    async def conversations(
        self, tenant: str, statuses: frozenset[Status] = frozenset(), *, limit: int, before: Cursor | None = None
    ) -> tuple[list[ConversationRow], Cursor | None]:
        """At most `limit` conversations in one of these statuses, or in any, the newest request first; those behind
        `before`, if it is given. And where the next page begins, None at the end. A limited number of conversations is
        looked at, however many there are: a page may be short, and not the last.
        """

    async def failed_conversations(
        self, tenant: str, since: datetime, *, limit: int, before: Cursor | None = None
    ) -> tuple[list[ConversationRow], Cursor | None]:
        """The same of those that have failed since then, the newest failure first; cursors have its time."""

    async def conversation_days(self, tenant: str, since: datetime, until: datetime) -> ConversationDays:
        """Conversations that were asked for from `since` to before `until`, by day and status."""
