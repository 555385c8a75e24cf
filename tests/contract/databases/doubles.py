"""PostgreSQL and the in-memory double for the tests of ports, each with access to what it has stored."""

from __future__ import annotations

from uuid import UUID

from schemas import topics
from schemas.jobs.rows import Usage
from sinks.memory.database import MemoryDatabase
from sinks.postgres.database import Postgres

#: Topics on which the tests here schedule something.
SCHEDULED = ("asr.requests.a", "asr.requests.b", topics.RECONCILE_DUE.name, topics.INTAKE_DUE.name)


class OfMemory:
    """The double, with a look into its outbox."""

    def __init__(self) -> None:
        self.database = MemoryDatabase()

    async def outbox(self) -> list[tuple[str, UUID]]:
        return [(m.topic, m.id) for _, m in self.database.outbox]

    async def due(self) -> list[tuple[str, bytes | None]]:
        """What is due now, statuses left out."""
        now = self.database.clock()
        return [(m.topic, m.key) for due, m in self.database.outbox if due <= now and m.topic in SCHEDULED]

    async def whose(self) -> list[str | None]:
        """Whose requests to a recognizer are due now."""
        now = self.database.clock()
        return [m.tenant_id for due, m in self.database.outbox if due <= now and m.topic == "asr.requests.a"]

    async def usage(self) -> list[Usage]:
        return self.database.usage


class OfPostgres:
    """The real thing, with the same look."""

    def __init__(self, pool) -> None:
        self.database = Postgres(pool)
        self.pool = pool

    async def outbox(self) -> list[tuple[str, UUID]]:
        rows = await self.pool.fetch("SELECT topic, event_id FROM outbox ORDER BY id")
        return [(row["topic"], row["event_id"]) for row in rows]

    async def due(self) -> list[tuple[str, bytes | None]]:
        rows = await self.pool.fetch("SELECT topic, key FROM outbox WHERE due_at <= clock_timestamp() ORDER BY id")
        return [(row["topic"], row["key"]) for row in rows if row["topic"] in SCHEDULED]

    async def whose(self) -> list[str | None]:
        rows = await self.pool.fetch(
            "SELECT tenant_id, topic FROM outbox WHERE due_at <= clock_timestamp() ORDER BY id"
        )
        return [row["tenant_id"] for row in rows if row["topic"] == "asr.requests.a"]

    async def usage(self) -> list[Usage]:
        columns = "tenant_id, job_id, run, provider, unit, ref, quantity"
        return [Usage(**row) for row in await self.pool.fetch(f"SELECT {columns} FROM usage")]
