"""All doubles in one object, as `sinks.postgres.database.Postgres` combines the ports on PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sinks.memory.accounts.api_usage import MemoryApiUsage
from sinks.memory.accounts.keys import MemoryKeys
from sinks.memory.api.direct_uploads import MemoryDirectUploads
from sinks.memory.api.idempotency import MemoryIdempotency
from sinks.memory.api.schedules import MemorySchedules
from sinks.memory.conversations.agents import MemoryConversationAgents
from sinks.memory.jobs import MemoryJobs
from sinks.memory.leases import MemoryLeases
from sinks.memory.mail.ledger import MemoryMailLedger
from sinks.memory.outbox import MemoryOutbox
from sinks.memory.providers.adjudications import MemoryAdjudications
from sinks.memory.providers.limits import MemoryLimits
from sinks.memory.providers.requests import MemoryRequests
from sinks.memory.providers.slots import MemorySlots
from sinks.memory.providers.strays import MemoryStrays
from sinks.memory.providers.usage import MemoryUsage
from sinks.memory.steps import MemorySteps
from sinks.memory.upkeep.blob_intents import MemoryBlobIntents
from sinks.memory.upkeep.deletions import MemoryDeletions
from sinks.memory.upkeep.earlier_transcripts import MemoryEarlierTranscripts
from sinks.memory.upkeep.expired_jobs import MemoryExpiredJobs
from sinks.memory.upkeep.retention import MemoryRetention
from sinks.memory.upkeep.stuck_jobs import MemoryStuckJobs
from sinks.memory.upkeep.verification import MemoryVerification
from sinks.memory.uploads import MemoryUploads


@dataclass
class MemoryDatabase(
    MemorySteps,
    MemoryJobs,
    MemoryUploads,
    MemoryDeletions,
    MemoryExpiredJobs,
    MemoryEarlierTranscripts,
    MemoryLeases,
    MemoryMailLedger,
    MemoryOutbox,
    MemoryStuckJobs,
    MemoryBlobIntents,
    MemoryRetention,
    MemoryVerification,
    MemoryRequests,
    MemoryStrays,
    MemorySlots,
    MemoryLimits,
    MemoryUsage,
    MemoryAdjudications,
    MemoryKeys,
    MemoryConversationAgents,
    MemoryApiUsage,
    MemoryIdempotency,
    MemoryDirectUploads,
    MemorySchedules,
):
    """The ports that stages need, in this process; see `MemoryState` for its fields."""

    def acting_as(self, _: str) -> Self:
        """The same ports: row-level security is PostgreSQL's alone, and has tests of its own."""
        return self

    async def close(self) -> None:
        """Nothing to release."""
