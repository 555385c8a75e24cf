"""What people ask of PostgreSQL, under row-level security: a query that omits the tenant still finds only its rows."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import InvalidInput
from schemas.ids import EVERY_TENANT, Whose, canonical_uuid
from schemas.jobs.rows import OPEN, File, Job, Transcript
from schemas.jobs.status import StatusVersion, status_of
from sinks.coalesce import Coalesce
from sinks.fair_slots import FairSlots
from sinks.ports.reads import EVERY_JOB, MANY, Cursor, JobFilter, Page, Reads
from sinks.postgres.connection.errors import AWAY, unavailable
from sinks.postgres.connection.port import by_column
from sinks.postgres.corrections.reads import CorrectionReads
from sinks.postgres.corrections.voices import VoiceReads
from sinks.postgres.reading.job_list import FEW, JobListQuery, following_prefix
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import DELETIONS, FILES, JOBS, LISTED_JOBS, TRANSCRIPTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import asyncpg

    from schemas.events.job import JobStatus
    from schemas.ids import Key
    from schemas.jobs.deletion import Deletion

#: Rows of a list after which the event loop runs other tasks.
TURN = 50

#: Concurrent questions over a pool of eight connections: of all tenants, and of one tenant.
READ_SLOTS, TENANT_SLOTS = 6, 3

#: Seconds between two questions for the versions of statuses, of a p99 of 10 ms that reading a status may take. Each
#: takes some 0.2 ms of CPU time here, and as much of PostgreSQL, for however many jobs it is.
PAUSE_S = 0.004

#: Seconds to wait for a free connection, and for an answer. People ask again; they do not wait as long as stages do.
ACQUIRE_S, ANSWER_S = 3.0, 5.0

#: One round trip into a read-only transaction as a tenant, until the transaction ends. Several statements at once take
#: no parameters; the name therefore goes as hexadecimal digits, so that nothing in it can be SQL.
_AS_TENANT: Final = (
    "BEGIN READ ONLY; SET LOCAL ROLE concord_tenant; "
    "SELECT set_config('concord.tenant', convert_from('\\x{name}'::bytea, 'UTF8'), true)"
)

#: For lists, behind it. The planner does not know how many jobs a tenant has in a status: where it expects few, it
#: reads and sorts them all, 10,000 in 100 ms. In the order of an index, it stops where the page does.
_IN_ORDER: Final = "; SET LOCAL enable_bitmapscan = off"

#: For searches, likewise: all rows, plans for what is looked for, be it frequent or rare, and statements that may not
#: take long in any case.
_SEARCHING: Final = (
    "; SET LOCAL ROLE concord_worker; SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL statement_timeout = '3s'"
)

#: Before and after every job.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Used:
    """What requests to a provider used up, added up."""

    tenant_id: str
    #: None where all jobs are added up.
    job_id: str | None
    provider: str
    #: See `schemas.jobs.rows.Usage`.
    unit: str
    quantity: float


class Reader(CorrectionReads, VoiceReads, Reads):
    """`Reads` on a pool of `sinks.postgres.database.connect_pool`, whose own role is the operator's."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._slots: FairSlots[Whose] = FairSlots(READ_SLOTS, TENANT_SLOTS)
        self._giving_back: set[asyncio.Task[None]] = set()
        self._versions = Coalesce(self._status_versions, PAUSE_S)
        self._finding: dict[Whose, Coalesce[str, list[Job]]] = {}

    async def job(self, tenant: str, job_id: str) -> Job | None:
        """The job's row, read as that tenant."""
        return next((job for job in await self.find(tenant, job_id) if job.job_id == job_id), None)

    async def status_version(self, tenant: str, job_id: str) -> StatusVersion | None:
        """How new the job's row is."""
        return await self._versions((tenant, job_id))

    async def _status_versions(self, keys: Sequence[Key]) -> list[StatusVersion | None]:
        """Over a connection beside the slots, so that no list can block it: there is one such question at a time."""
        with unavailable():
            async with asyncio.timeout(ACQUIRE_S + ANSWER_S):
                rows = await self._pool.fetch(SQL["read_status_version"], *by_column(keys, 2))
        versions = {(row["tenant_id"], row["job_id"]): (row["created_at"], row["version"]) for row in rows}
        return [versions.get(key) for key in keys]

    async def find(self, whose: Whose, name: str, limit: int = MANY) -> list[Job]:
        """The jobs that are meant by an id or a reference."""
        find = self._finding.setdefault(whose, Coalesce(partial(self._find, whose)))
        try:
            return (await find(name))[:limit]
        finally:
            if find.is_idle:
                self._finding.pop(whose, None)

    async def _find(self, whose: Whose, names: Sequence[str]) -> list[list[Job]]:
        jobs: list[list[Job]] = [[] for _ in names]
        for row in await self.read(whose, "find_jobs", names, [canonical_uuid(name) or name for name in names], MANY):
            jobs[row["number"] - 1].append(JOBS.read(row))
        return jobs

    async def jobs(
        self, tenant: str, wanted: JobFilter = EVERY_JOB, *, limit: int = 50, before: Cursor | None = None
    ) -> Page:
        """A page of a tenant's jobs, read as that tenant."""
        query = JobListQuery(wanted, limit, before, await self._candidates(tenant, wanted))
        rows = await self._fetch(tenant, query.sql, *query.arguments, settings=_IN_ORDER)
        jobs: list[JobStatus] = []
        for row in [row for row in rows if row["is_wanted"]][:limit]:
            jobs.append(status_of(LISTED_JOBS.read(row)))
            if len(jobs) % TURN == 0:
                await asyncio.sleep(0)
        if len(rows) > limit and len(jobs) == limit:
            return Page(jobs, Cursor(jobs[-1].created_at, jobs[-1].job_id))
        last = rows[-1] if rows and rows[-1]["n"] == query.scanned else None
        return Page(jobs, Cursor(last["created_at"], last["job_id"]) if last else None)

    async def _candidates(self, tenant: str, wanted: JobFilter) -> list[str] | None:
        """Ids among which all wanted jobs are, where another index than that of the list's order knows few."""
        rows: list[Any] | None = None
        if prefix := wanted.reference or wanted.reference_prefix:
            end = wanted.reference + "\x01" if wanted.reference else following_prefix(prefix)
            rows = await self.read(tenant, "jobs_by_reference", prefix, end, FEW + 1)
        if (rows is None or len(rows) > FEW) and (wanted.completed_from or wanted.completed_to):
            since, until = wanted.completed_from or _FIRST, wanted.completed_to or _LAST
            rows = await self.read(tenant, "jobs_by_end", since, until, FEW + 1)
        if wanted.statuses or len(wanted.metadata) > 1:  # else the list's order is that of the one pair
            for key, value in sorted(wanted.metadata):
                if rows is None or len(rows) > FEW:
                    rows = await self.read(tenant, "jobs_by_metadata", key, value, FEW + 1)
        return [row["job_id"] for row in rows] if rows is not None and len(rows) <= FEW else None

    async def transcript(self, tenant: str, job_id: str, run: int | None = None) -> Transcript | None:
        """The transcript of a run; by default of the newest run that has one."""
        rows = await self.read(tenant, "read_transcript", tenant, job_id, run)
        return TRANSCRIPTS.read(rows[0]) if rows else None

    async def files(self, tenant: str, job_id: str) -> list[File]:
        """Every blob of the job."""
        rows = await self.read(tenant, "read_files", tenant, job_id)
        return [FILES.read(row) for row in rows]

    async def tenants(self, limit: int = 1000) -> list[str]:
        """The tenants that have jobs, in order."""
        return [row["tenant_id"] for row in await self.read(EVERY_TENANT, "read_tenants", limit)]

    async def counts(self) -> dict[str, int]:
        """How many jobs have not ended, by status."""
        counts = {row["status"]: row["jobs"] for row in await self.read(EVERY_TENANT, "count_open_jobs")}
        return {status: counts.get(status, 0) for status in OPEN}

    async def usage(self, whose: Whose, since: datetime, until: datetime, *, by_job: bool) -> list[Used]:
        """What requests from `since` to before `until` used up, in order of tenant (and job), provider and unit."""
        return [Used(**row) for row in await self.read(whose, "read_usage", since, until, by_job)]

    async def read(self, whose: Whose, name: str, *arguments: Any) -> list[Any]:
        """The rows of a statement of `sinks.postgres.sql`, as `whose` sees them. Raises Unavailable."""
        return await self._fetch(whose, SQL[name], *arguments)

    async def deletion(self, whose: Whose, id: str) -> Deletion | None:
        """The deletion with this id."""
        rows = await self.read(whose, "read_deletion", id)
        return DELETIONS.read(rows[0]) if rows else None

    async def deletion_of(self, whose: Whose, job_ids: Sequence[str]) -> Deletion | None:
        """The newest deletion of a job with one of these ids."""
        rows = await self.read(whose, "read_deletion_of_job", list(job_ids))
        return DELETIONS.read(rows[0]) if rows else None

    async def _fetch(self, whose: Whose, sql: str, *arguments: Any, settings: str = "") -> list[Any]:
        with unavailable():
            async with self._acting_as(whose, settings) as connection:
                rows: list[Any] = await connection.fetch(sql, *arguments, timeout=ANSWER_S)
                return rows

    @contextlib.asynccontextmanager
    async def searching(self, tenant: str) -> AsyncIterator[Any]:
        """A connection that sees every row, and cannot write, in one of the tenant's slots: for statements of which the
        tenant is a condition, and which return no more than keys (`sinks/postgres/sql/search.sql`).
        """
        with unavailable():
            async with self._acting_as(tenant, _SEARCHING) as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def _acting_as(self, whose: Whose, settings: str = "") -> AsyncIterator[Any]:
        """A connection that sees the rows of `whose`, and cannot write."""
        async with asyncio.timeout(ACQUIRE_S):
            await self._slots.acquire(whose)
            try:
                connection = await self._pool.acquire()
            except BaseException:
                self._slots.release(whose)
                raise
        try:
            if whose is not EVERY_TENANT:
                await connection.execute(_AS_TENANT.format(name=_hex(whose)) + settings, timeout=ANSWER_S)
            yield connection
        finally:
            # The caller has the answer and does not wait for the rest: in a busy loop that took as long again.
            task = asyncio.create_task(self._give_back(connection, whose))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)

    async def _give_back(self, connection: Any, whose: Whose) -> None:
        with contextlib.suppress(*AWAY):  # then the pool opens another
            try:
                if connection.is_in_transaction():  # not when the server has gone
                    await connection.execute("ROLLBACK", timeout=ANSWER_S)
            finally:
                self._slots.release(whose)
                await self._pool.release(connection)


def _hex(tenant: str) -> str:
    if not tenant or not tenant.isprintable():
        raise InvalidInput(f"{tenant!r} cannot be a tenant's name")
    return tenant.encode().hex()
