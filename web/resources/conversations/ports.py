"""What takes in conversations, as the HTTP interface needs it."""

from __future__ import annotations

from typing import Protocol

from schemas.conversations.rows import Taken
from schemas.events.conversation import ConversationRequested
from schemas.jobs.rows import Job


class TakesConversations(Protocol):
    """Begins and ends the processing of conversations; see `agents.stages.uploads.asked.AskedConversations`."""

    async def request(self, wanted: ConversationRequested, author: str) -> Taken:
        """Begin it, or its next run where the last has failed; nothing changes where it goes on or is complete.

        Raises:
            UnsupportedOption: this installation lacks something for it.
            Conflict: an upload has the conversation's name.
            Unavailable: the database cannot be reached.
        """

    async def begin_unknown(self, wanted: ConversationRequested, author: str) -> bool:
        """Begin it if it is not known yet, nor was deleted; whether it was begun. Raises as `request` does."""

    async def cancel(self, job: Job, reason: str, author: str) -> Job:
        """End what goes on of it. Raises Conflict if nothing does."""
