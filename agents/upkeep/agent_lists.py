"""Finds conversations of ElevenLabs' agents that nobody has asked for: ElevenLabs' webhooks are off by default, are not
repeated, and are switched off after failures.

Of each agent in an account's settings the list of conversations is read again and again, since a time that was seen
before. A look that breaks off is repeated from the same time: a conversation that was begun is known by its job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from pydantic import ValidationError

from agents.upkeep.claims.polling import poll_claims
from schemas.conversations.rows import AgentLook
from schemas.errors import ConcordError, Conflict, Unavailable
from schemas.events.conversation import ConversationRequested
from schemas.texts import readable
from sinks.ports.conversations.agents import ConversationAgents

log = logging.getLogger(__name__)

#: Who asks, in the audit log.
AUTHOR: Final = "list of the agent"

#: Seconds between two questions for looks that are due, of the claim of one, and after which one that failed is
#: repeated.
POLL_S, LEASE_S, RETRY_S = 5.0, 300.0, 60.0

#: Seconds by which looks overlap: a call is in the list some time after its beginning, and clocks differ.
OVERLAP_S: Final = 3600.0

#: Characters of an error that are kept.
ERROR_CHARS: Final = 300


class Listed(Protocol):
    """A conversation in an agent's list."""

    @property
    def conversation_id(self) -> str: ...
    @property
    def status(self) -> str: ...


class ListsConversations(Protocol):
    """Reads the lists; see `agents.conversations.client.ElevenLabs`."""

    def listed(self, agent_id: str, after: datetime) -> AsyncIterator[Listed]:
        """The conversations of an agent that have begun since then."""


class BeginsConversations(Protocol):
    """Begins what is found; see `agents.stages.uploads.asked.AskedConversations`."""

    async def begin_unknown(self, wanted: ConversationRequested, author: str) -> bool:
        """Begin it if it is not known yet, nor was deleted; whether it was begun."""


@dataclass(frozen=True)
class AgentLists:
    """Looks at the lists of agents; any number of processes may."""

    database: ConversationAgents
    client: ListsConversations
    conversations: BeginsConversations
    #: Seconds between two looks at an agent's list.
    every_s: float
    #: Called with the name of each failpoint.
    passing: Callable[[str], None] = lambda _: None

    async def run(self) -> None:
        """Look until cancelled."""
        await poll_claims(self.turn, POLL_S, log, "the lists of agents wait")

    async def turn(self) -> bool:
        """Look at the list that has waited longest; whether one was due. Raises Unavailable."""
        look = await self.database.claim_look(LEASE_S)
        if look is None:
            return False
        begun, error = 0, None
        try:
            async with asyncio.timeout(LEASE_S - 30):
                async for one in self.client.listed(look.agent_id, look.looked_to - timedelta(seconds=OVERLAP_S)):
                    begun += await self._begin(look, one)
                    self.passing("agent.begun")
        except Unavailable:
            raise  # of our own servers: the claim lapses
        except (ConcordError, TimeoutError) as exc:
            error = readable(str(exc) or "the list takes too long", ERROR_CHARS)
            log.warning("the list of %s's agent %s was not read to its end: %s", look.tenant_id, look.agent_id, error)
        looked_to, wait_s = (look.looked_to, RETRY_S) if error else (look.began_at, self.every_s)
        await self.database.end_look(look, looked_to, begun, wait_s, error)
        return True

    async def _begin(self, look: AgentLook, one: Listed) -> bool:
        """Whether the conversation was begun. What cannot be processed keeps no other waiting."""
        if one.status == "failed":
            return False  # there is nothing to fetch
        try:
            wanted = ConversationRequested(
                tenant_id=look.tenant_id, conversation_id=one.conversation_id, email_id=look.email_id
            )
            return await self.conversations.begin_unknown(wanted, AUTHOR)
        except (ValidationError, Conflict) as exc:
            log.warning("a conversation of the agent %s is left out: %s", look.agent_id, exc)
            return False
