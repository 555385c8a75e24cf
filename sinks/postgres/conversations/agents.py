"""Agents of tenants' settings, and looks at their conversations, on PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from schemas.conversations.rows import AgentLook
from sinks.ports.conversations.agents import ConversationAgents
from sinks.postgres.connection.port import PostgresPort


class PostgresConversationAgents(PostgresPort, ConversationAgents):
    """`ConversationAgents` on a pool."""

    async def owners_of_agent(self, agent_id: str) -> list[tuple[str, str]]:
        """Each tenant whose agent this is, with an address."""
        return [(row["tenant_id"], row["email_id"]) for row in await self._fetch("owners_of_agent", agent_id)]

    async def claim_look(self, lease_s: float) -> AgentLook | None:
        """The look that has waited longest."""
        rows = await self._fetch("claim_look", lease_s)
        return AgentLook(**rows[0]) if rows else None

    async def end_look(
        self, look: AgentLook, looked_to: datetime, begun: int, wait_s: float, error: str | None = None
    ) -> None:
        """The look has ended."""
        claim = look.tenant_id, look.agent_id, look.token
        await self._fetch("end_look", *claim, looked_to, begun, wait_s, error)
