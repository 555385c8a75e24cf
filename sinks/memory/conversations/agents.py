"""The double of agents of tenants' settings, and of looks at their conversations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from schemas.conversations.rows import AgentLook
from sinks.memory.accounts.settings import MemorySettings
from sinks.memory.state import ORPHANED
from sinks.ports.conversations.agents import ConversationAgents


@dataclass
class MemoryConversationAgents(MemorySettings, ConversationAgents):
    """`ConversationAgents` in this process."""

    #: By (tenant, agent): the newest look, and when the next is due.
    looks: dict[tuple[str, str], tuple[AgentLook, datetime]] = field(default_factory=dict)

    async def owners_of_agent(self, agent_id: str) -> list[tuple[str, str]]:
        """Each tenant whose agent this is, with an address."""
        return [(tenant, email) for tenant, agent, email in self._agents() if agent == agent_id]

    async def claim_look(self, lease_s: float) -> AgentLook | None:
        """The look that has waited longest."""
        now = self.clock()
        due = [
            (at, tenant, agent, email)
            for tenant, agent, email in self._agents()
            if (at := self.looks[tenant, agent][1] if (tenant, agent) in self.looks else ORPHANED) <= now
        ]
        if not due:
            return None
        _, tenant, agent, email = min(due)
        known = self.looks.get((tenant, agent))
        look = AgentLook(
            tenant_id=tenant,
            agent_id=agent,
            email_id=email,
            looked_to=known[0].looked_to if known else now,
            began_at=now,
            token=known[0].token + 1 if known else 1,
        )
        self.looks[tenant, agent] = look, now + timedelta(seconds=lease_s)
        return look

    async def end_look(
        self, look: AgentLook, looked_to: datetime, begun: int, wait_s: float, error: str | None = None
    ) -> None:
        """The look has ended. What it has begun, and its error, are for people who read the table."""
        del begun, error
        key = look.tenant_id, look.agent_id
        if self.looks[key][0].token == look.token:
            self.looks[key] = replace(look, looked_to=looked_to), self.clock() + timedelta(seconds=wait_s)

    def _agents(self) -> list[tuple[str, str, str]]:
        return [
            (tenant, agent, email)
            for tenant, stored in sorted(self._settings.items())
            for agent, email in sorted((stored.settings.conversation_agents or {}).items())
        ]
