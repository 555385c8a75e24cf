"""Jobs' rows on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import asyncpg

from schemas.corrections.rows import load_words
from schemas.ids import Key
from schemas.jobs.rows import Job
from sinks.coalesce import Coalesce
from sinks.ports.jobs import Jobs, WordSource
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.tables import JOBS


class PostgresJobs(PostgresPort, Jobs):
    """`Jobs` on a pool. Questions of the same moment share a statement."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        super().__init__(pool, shards=shards)
        self._job = Coalesce(self._jobs)
        self._named = Coalesce(self._many_named)

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """The job's row, without its metadata."""
        return await self._job((tenant_id, job_id))

    async def _jobs(self, keys: Sequence[Key]) -> list[Job | None]:
        jobs = {job.key: job for job in map(JOBS.read, await self._fetch("jobs", *by_column(keys, 2)))}
        return [jobs.get(key) for key in keys]

    async def metadata(self, tenant_id: str, job_id: str) -> dict[str, Any]:
        """What the job's producer sent along."""
        rows = await self._fetch("metadata", tenant_id, job_id)
        return rows[0]["metadata"] if rows else {}

    async def transcript_uri(self, tenant_id: str, job_id: str, run: int) -> str | None:
        """Where the newest version of the run's transcript is."""
        rows = await self._fetch("transcript_uri", tenant_id, job_id, run)
        return rows[0]["agent_optimized_uri"] if rows else None

    async def words_of_version(self, tenant_id: str, job_id: str, run: int, version: int) -> WordSource | None:
        """Where the words of a version of the run's transcript are."""
        rows = await self._fetch("words_of_version", tenant_id, job_id, run, version)
        if not rows:
            return None
        [row] = rows
        edited = None if row["words"] is None else load_words(row["words"])
        return WordSource(row["raw_transcript_uri"], row["language"], edited)

    async def named(self, tenant_id: str, job_id: str, reference: str | None) -> list[Job]:
        """The tenant's jobs that have this id or this reference."""
        return await self._named((tenant_id, job_id, reference))

    async def _many_named(self, names: Sequence[tuple[str, str, str | None]]) -> list[list[Job]]:
        jobs: list[list[Job]] = [[] for _ in names]
        for row in await self._fetch("named", *by_column(names, 3)):
            jobs[row["number"] - 1].append(JOBS.read(row))
        return jobs

    async def open_jobs(self, tenant_id: str, statuses: Collection[str], after: str, limit: int) -> list[Key]:
        """A page of the tenant's jobs that have not ended, by id."""
        rows = await self._fetch("open_jobs", tenant_id, list(statuses), after, limit)
        return [(row["tenant_id"], row["job_id"]) for row in rows]
