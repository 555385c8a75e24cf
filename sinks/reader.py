"""What people ask of PostgreSQL, under row-level security: a query that forgets whose it is finds nothing foreign."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import InvalidInput
from schemas.ids import canonical_uuid
from schemas.jobs import ORDER, TERMINAL, File, Job, Status, Transcript
from sinks import MANY, Cursor, Page, queries
from sinks.postgres import _job
from sinks.postgres_errors import AWAY, unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    import asyncpg

SQL = queries.load("reads")

#: Seconds to wait for a free connection, and for an answer. People ask again; they do not wait as long as stages do.
ACQUIRE_S, ANSWER_S = 3.0, 5.0

_OPEN: Final = tuple(status for status in ORDER if status not in TERMINAL)
_TRANSCRIPT_COLUMNS = tuple(f.name for f in fields(Transcript))
_FILE_COLUMNS = tuple(f.name for f in fields(File))

#: One round trip into a read-only transaction as a tenant, until the transaction ends. Several statements at once take
#: no parameters; the name therefore goes as hexadecimal digits, so that nothing in it can be SQL.
_AS_TENANT: Final = (
    "BEGIN READ ONLY; SET LOCAL ROLE concord_tenant; "
    "SELECT set_config('concord.tenant', convert_from('\\x{name}'::bytea, 'UTF8'), true)"
)


@dataclass(frozen=True, slots=True)
class Used:
    """What requests to a provider used up, added up."""

    tenant_id: str
    #: None where all jobs are added up.
    job_id: str | None
    provider: str
    #: See `schemas.jobs.Usage`.
    unit: str
    quantity: float


class Reader:
    """`sinks.Reads` on a pool of `sinks.postgres.connect_pool`, whose own role is the operator's."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._giving_back: set[asyncio.Task[None]] = set()

    async def job(self, tenant: str, job_id: str) -> Job | None:
        """The job's row; as that tenant, whoever asks."""
        rows = await self._read(tenant, "read_job", job_id, tenant)
        return _job(rows[0]) if rows else None

    async def find(self, tenant: str | None, name: str, limit: int = MANY) -> list[Job]:
        """The jobs that are meant by an id or a reference."""
        ids = [name, *filter(None, [canonical_uuid(name)])]
        return [_job(row) for row in await self._read(tenant, "find_jobs", ids, name, limit)]

    async def jobs(
        self, tenant: str, *, status: Status | None = None, limit: int = 50, before: Cursor | None = None
    ) -> Page:
        """A page of a tenant's jobs; as that tenant, whoever asks."""
        behind = (before.created_at, before.job_id) if before else (None, "")
        # One more than asked for tells whether there is a next page.
        if status is None:
            rows = await self._read(tenant, "read_jobs", *behind, limit + 1)
        else:
            rows = await self._read(tenant, "read_jobs_in_status", *behind, limit + 1, status)
        jobs = [_job(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(jobs, Cursor(rows[limit - 1]["created_at"], jobs[-1].job_id) if more else None)

    async def transcript(self, tenant: str, job_id: str, run: int | None = None) -> Transcript | None:
        """The transcript of a run; by default of the newest run that has one."""
        rows = await self._read(tenant, "read_transcript", tenant, job_id, run)
        return Transcript(**{name: rows[0][name] for name in _TRANSCRIPT_COLUMNS}) if rows else None

    async def files(self, tenant: str, job_id: str) -> list[File]:
        """Every blob of the job."""
        rows = await self._read(tenant, "read_files", tenant, job_id)
        return [File(**{name: row[name] for name in _FILE_COLUMNS}) for row in rows]

    async def tenants(self, limit: int = 1000) -> list[str]:
        """Who has jobs."""
        return [row["tenant_id"] for row in await self._read(None, "read_tenants", limit)]

    async def counts(self) -> dict[str, int]:
        """How many jobs have not ended, by status."""
        found = {row["status"]: row["jobs"] for row in await self._read(None, "count_open_jobs")}
        return {status: found.get(status, 0) for status in _OPEN}

    async def usage(self, tenant: str | None, since: datetime, until: datetime, *, by_job: bool) -> list[Used]:
        """What requests from `since` to before `until` used up, in order of tenant (and job), provider and unit."""
        return [Used(**row) for row in await self._read(tenant, "read_usage", since, until, by_job)]

    async def _read(self, tenant: str | None, name: str, *arguments: Any) -> list[Any]:
        with unavailable():
            async with self._acting_as(tenant) as connection:
                rows: list[Any] = await connection.fetch(SQL[name], *arguments, timeout=ANSWER_S)
                return rows

    @contextlib.asynccontextmanager
    async def _acting_as(self, tenant: str | None) -> AsyncIterator[Any]:
        """A connection that sees what `tenant` may see, and cannot write."""
        async with asyncio.timeout(ACQUIRE_S):
            connection = await self._pool.acquire()
        try:
            if tenant is not None:
                await connection.execute(_AS_TENANT.format(name=_hex(tenant)), timeout=ANSWER_S)
            yield connection
        finally:
            # Whoever asked has the answer, and need not wait for the rest: in a busy loop that took as long again.
            task = asyncio.create_task(self._give_back(connection))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)

    async def _give_back(self, connection: Any) -> None:
        with contextlib.suppress(*AWAY):  # then the pool opens another
            try:
                if connection.is_in_transaction():  # not when the server has gone
                    await connection.execute("ROLLBACK", timeout=ANSWER_S)
            finally:
                await self._pool.release(connection)


def _hex(tenant: str) -> str:
    if not tenant or not tenant.isprintable():
        raise InvalidInput(f"{tenant!r} cannot be a tenant's name")
    return tenant.encode().hex()
