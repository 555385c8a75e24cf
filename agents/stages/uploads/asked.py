"""Conversations that are asked for over HTTP, by a hint, or by a look at an agent's list."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Final, Protocol
from uuid import uuid4

from agents.runtime.failpoints import passing
from agents.stages.uploads.conversations import ConversationRequests
from agents.stages.uploads.conversations import Database as Asked
from agents.stages.uploads.jobs import existing_job
from agents.upkeep import cancelling
from schemas.conversations.names import FETCH
from schemas.conversations.rows import Taken
from schemas.errors import Cancelled, Conflict, Contended
from schemas.events.conversation import ConversationRequested
from schemas.events.job import EnrichmentStatus
from schemas.jobs.outcome import Failure, Outcome, Step, failed_enrichment
from schemas.jobs.rows import Job
from sinks.ports.steps import Steps
from sinks.ports.tenants import PerTenant


class Database(Asked, Steps, Protocol):
    """What is asked of the database as one tenant."""


#: How often a conversation is taken in that others ask for at the same moment.
TRIES: Final = 3


@dataclass(frozen=True)
class AskedConversations:
    """Takes conversations in as the stage `fetch` does, in a transaction of its own."""

    databases: PerTenant[Database]
    requests: ConversationRequests

    async def request(self, wanted: ConversationRequested, author: str) -> Taken:
        """Begin it, or its next run where the last has failed.

        Raises:
            UnsupportedOption: This installation lacks something for it.
            Conflict: An upload has the conversation's name.
            Unavailable: The database does not answer. Nothing is begun, or all of it.
        """
        for _ in range(TRIES - 1):
            with contextlib.suppress(Contended):  # another request has created it at this moment: it is there now
                return await self._request(wanted, author)
        return await self._request(wanted, author)

    async def _request(self, wanted: ConversationRequested, author: str) -> Taken:
        database = self.databases.acting_as(wanted.tenant_id)
        outcome, existing = await self.requests.outcome(database, wanted)
        begun = False
        if outcome.create is not None or outcome.begin is not None or outcome.later:
            [written] = await database.commit([_step(outcome, author)])
            # Where another request has begun it at the same moment, there is that one.
            begun = written is not None and written.applied
            passing("conversation.committed")
        job = await existing_job(database, wanted.tenant_id, wanted.job_id)
        return Taken(job, begun, known=existing is not None)

    async def begin_unknown(self, wanted: ConversationRequested, author: str) -> bool:
        """Begin it if it is not known yet, nor was deleted, verified if the account's settings say so; whether it was
        begun. Raises as `request` does.
        """
        database = self.databases.acting_as(wanted.tenant_id)
        if await database.deletion(wanted.tenant_id, wanted.job_id) is not None:
            return False
        if await database.job(wanted.tenant_id, wanted.job_id) is not None:
            return False
        verify = bool((await self.requests.accounts.settings_of(wanted.tenant_id)).conversation_verify)
        options = wanted.options.model_copy(update={"verify": verify})
        return (await self.request(wanted.model_copy(update={"options": options}), author)).begun

    async def cancel(self, job: Job, reason: str, author: str) -> Job:
        """End its run; or, if that is complete, what is still to be made of it. A mail that is being handed over at
        this moment may be sent.

        Raises:
            Conflict: Nothing goes on.
            Unavailable: The database does not answer. Nothing is cancelled, or all of it.
        """
        database = self.databases.acting_as(job.tenant_id)
        steps = _cancelling(job, reason) if job.ended else [cancelling.cancelled(job, reason)]
        steps = [replace(step, outcome=replace(step.outcome, author=author)) for step in steps]
        written = await database.commit(steps) if steps else []
        passing("cancel.committed")
        if not any(one is not None and one.applied for one in written):
            raise Conflict("there is nothing to cancel: nothing goes on any more")
        return await existing_job(database, *job.key)


def _step(outcome: Outcome, author: str) -> Step:
    return Step(FETCH, uuid4(), replace(outcome, remembered=False, author=author))


def _cancelling(job: Job, reason: str) -> list[Step]:
    """Steps that end the enrichments that are still to be made."""
    is_open = {kind: status for kind, status in job.enrichment.items() if status.state not in ("done", "failed")}
    return [Step(cancelling.NAME, uuid4(), _ended(job, kind, status, reason)) for kind, status in is_open.items()]


def _ended(job: Job, kind: str, status: EnrichmentStatus, reason: str) -> Outcome:
    failure = Failure(reason, Cancelled.code, max(status.attempts, 1))
    outcome = failed_enrichment(
        job, kind, failure, transcript_version=status.transcript_version, generation=status.generation
    )
    return replace(outcome, remembered=False)
