"""PostgreSQL and the in-memory double for the tests of ports, each with access to what it has stored."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from schemas import topics
from schemas.jobs.rows import AuditEntry, Usage
from sinks.memory.database import MemoryDatabase
from sinks.postgres.database import Postgres
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import AUDIT_LOG

#: Topics on which the tests here schedule something.
SCHEDULED = ("asr.requests.a", "asr.requests.b", topics.RECONCILE_DUE.name, topics.INTAKE_DUE.name)


#: Tables of which old rows are deleted, and the times that count.
EXPIRING = {
    "idempotency_keys": "created_at",
    "direct_uploads": "created_at",
    "inbox": "at",
    "adjudications": "at",
    "audit_log": "at",
    "leases": "until",
}


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

    async def audit(self) -> list[AuditEntry]:
        return [entry for entry, _ in self.database.audit.values()]

    async def set_aside(self, topic: str, error: str) -> None:
        """A topic's events, whether due or not, as a relay sets them aside."""
        self.database.set_aside(topic, error)

    async def age(self, days: float) -> None:
        """So many days go by."""
        later = self.database.clock() + timedelta(days=days)
        self.database.clock = lambda: later


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

    async def audit(self) -> list[AuditEntry]:
        return [AUDIT_LOG.read(row) for row in await self.pool.fetch("SELECT * FROM audit_log ORDER BY id")]

    async def set_aside(self, topic: str, error: str) -> None:
        for row in await self.pool.fetch("SELECT shard, id FROM outbox WHERE topic = $1 ORDER BY id", topic):
            await self.pool.execute(SQL["set_aside"], row["shard"], row["id"], error)

    async def age(self, days: float) -> None:
        """Every row that can expire was written so many days earlier."""
        async with self.pool.acquire() as db, db.transaction():
            await db.execute("SET LOCAL ROLE NONE")
            for table, column in EXPIRING.items():
                await db.execute(f"UPDATE {table} SET {column} = {column} - $1 * interval '1 day'", days)
