"""Takes in requests for conversations, whether they come as events or over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agents.conversations.requesting import request_outcome
from agents.stages.uploads.jobs import first_run
from agents.stages.uploads.waiting import begun
from schemas.conversations import names
from schemas.errors import Conflict, UnsupportedOption
from schemas.events.conversation import ConversationRequested
from schemas.jobs.deletion import Deletion
from schemas.jobs.outcome import Outcome
from schemas.jobs.rows import Job
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs


class Database(Clock, Jobs, Protocol):
    """What requests for conversations ask of the database."""

    async def deletion(self, tenant_id: str, job_id: str) -> Deletion | None:
        """The newest deletion of a job with this id; None if none was deleted."""


@dataclass(frozen=True)
class ConversationRequests:
    """Makes the outcome of each request."""

    accounts: EffectiveSettings
    #: What this installation lacks to process conversations, a sentence each.
    lacks: tuple[str, ...] = ()

    async def outcome(self, database: Database, request: ConversationRequested) -> tuple[Outcome, Job | None]:
        """What is to be committed, and the conversation's job as it is before; `database` may be that of one tenant.

        Raises:
            UnsupportedOption: This installation lacks something for it.
            Conflict: An upload has the conversation's name.
            Unavailable: The database does not answer.
        """
        settings = await self.accounts.settings_of(request.tenant_id)
        self.check()
        reference = names.reference(request.conversation_id)
        candidates = await database.named(request.tenant_id, request.job_id, reference)
        existing = next((job for job in candidates if job.job_id == request.job_id), None)
        if existing is None and candidates:
            raise Conflict("conversation_id: an upload has this conversation's reference; give that another one")
        run = 1 if existing else first_run(await database.deletion(request.tenant_id, request.job_id))
        outcome = request_outcome(request, existing, await database.now(), first_run=run, settings=settings)
        return await begun(outcome, database, is_limited=settings.max_open_jobs is not None), existing

    def check(self) -> None:
        """Raises UnsupportedOption if no conversation can be processed here; it says what to do."""
        if self.lacks:
            raise UnsupportedOption(f"conversations are not processed here: {' '.join(self.lacks)}")
