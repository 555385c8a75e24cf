"""The port of ElevenLabs' agents whose conversations are a tenant's, as its settings say."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from schemas.conversations.rows import AgentLook


class ConversationAgents(Protocol):
    """Agents by the setting `conversation_agents` of all tenants, and looks at the lists of their conversations.

    A worker claims a look, and says how far it has seen; a claim of a worker that says nothing lapses. A write under an
    older claim does nothing.
    """

    async def owners_of_agent(self, agent_id: str) -> list[tuple[str, str]]:
        """Each tenant whose agent this is, with the address to which its reports are mailed, in order."""

    async def claim_look(self, lease_s: float) -> AgentLook | None:
        """The look that has waited longest. The first at an agent begins at the present."""

    async def end_look(
        self, look: AgentLook, looked_to: datetime, begun: int, wait_s: float, error: str | None = None
    ) -> None:
        """The look has seen what began before `looked_to`, and begun so many; the next is due in so many seconds."""
