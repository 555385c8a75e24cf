"""Deletions on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from schemas import blob_names
from schemas.ids import Key
from schemas.jobs.deletion import (
    FILE_CONDITIONS,
    FILE_TABLES,
    FIRST_TABLES,
    NAME,
    TERMINAL_TOPICS,
    Deletion,
    Scope,
    begun,
    counted,
    farewell,
    noted,
)
from schemas.jobs.rows import Job
from sinks.ports.upkeep.deletions import Deletions
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.outbox import insert_messages
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import AUDIT_LOG, DELETIONS, JOBS, PROVIDER_REQUESTS

_OF_RUNS: Final = "run <= $3"

#: By table, which rows of the job ($1, $2) are deleted; $3 is the last deleted run, $4 the time of the request. A new
#: job of the same id keeps its own. Each table with the columns `tenant_id` and `job_id` is here or in
#: `schemas.jobs.deletion.KEPT`, which `tests/contract/databases/upkeep/test_deletions.py` compares with the catalogue.
ERASED: Final[Mapping[str, str]] = {
    "transcripts": _OF_RUNS,
    "files": _OF_RUNS,
    # Also those of a new job of the same id: others are issued when it is asked for them.
    "issued_urls": "true",
    "enrichments": _OF_RUNS,
    "provider_requests": _OF_RUNS,
    "adjudications": _OF_RUNS,
    "transcript_versions": _OF_RUNS,
    "chunks": _OF_RUNS,
    "chunk_vectors": _OF_RUNS,
    "embedding_work": _OF_RUNS,
    "review_items": _OF_RUNS,
    "summary_items": _OF_RUNS,
    "review_choices": _OF_RUNS,
    "voice_prints": _OF_RUNS,
    "direct_uploads": "created_at < $4",
    # Without a value: what deletes the job's status.
    "outbox": f"coalesce(run, 1) <= $3 AND value IS NOT NULL AND topic <> ALL('{{{','.join(TERMINAL_TOPICS)}}}')",
    "outbox_refused": "coalesce(run, 1) <= $3",
    "audit_log": f"run <= $3 AND step <> '{NAME}'",
    # A later one is of a writer that was late: its blob is found by it. So is what was sent straight to the store.
    "blob_intents": f"at < $4 AND strpos(uri, '/{blob_names.UPLOADS}/') = 0",
    # What the deletion itself announces is sent afterwards.
    "webhook_deliveries": "created_at < $4",
    "mails": _OF_RUNS,
    "jobs": _OF_RUNS,
}

#: Those whose rows a trigger or a foreign key deletes with the job's.
WITH_THE_JOB: Final = frozenset({"job_metadata", "revivals"})


class PostgresDeletions(PostgresPort, Deletions):
    """`Deletions` on a pool."""

    async def begin_deletion(self, key: Key, by: str, scope: Scope = "job") -> Deletion | None:
        """Delete the job's row with what belongs to it, or forget its recording."""
        async with self._transaction() as db:
            records = await db.fetch(SQL["lock_jobs"], [key[0]], [key[1]], [], [])
            if not records:
                return None
            job, now = JOBS.read(records[0]), records[0]["db_now"]
            if scope == "files" and not job.ended:
                return None
            requests = await db.fetch(SQL["requests_of_job"], *key)
            deletion = begun(job, map(PROVIDER_REQUESTS.read, requests), scope, by, now)
            size = await db.fetchval(SQL["bytes_of_job"], *key)
            rows = await _erase(db, deletion, FIRST_TABLES if scope == "job" else FILE_TABLES)
            deletion = replace(deletion, receipt=counted(deletion.receipt, rows) | {"bytes": size})
            await db.execute(SQL["insert_deletion"], *DELETIONS.arguments([deletion]))
            await self._announce(db, job, deletion)
            return deletion

    async def _announce(self, db: Any, job: Job, deletion: Deletion) -> None:
        if deletion.scope == "files":
            await db.execute(SQL["forget_files"], *job.key)
        else:
            messages = farewell(job, deletion, deletion.requested_at)
            await insert_messages(db, [(message, 0.0) for message in messages], self._shards)
        await db.execute(SQL["insert_audit"], *AUDIT_LOG.arguments([noted(deletion)]))

    async def deletion(self, tenant_id: str, job_id: str) -> Deletion | None:
        """The newest deletion of a job with this id."""
        rows = await self._fetch("deletions_of_jobs", [tenant_id], [job_id])
        return DELETIONS.read(rows[0]) if rows else None

    async def due_deletions(self, limit: int, claim_s: float) -> list[Deletion]:
        """Claim deletions whose next pass is due."""
        return [DELETIONS.read(row) for row in await self._fetch("due_deletions", limit, claim_s)]

    async def erase_rows(self, deletion: Deletion, hold_s: float) -> Deletion:
        """Delete what rows are left of the deleted runs."""
        runs = (*deletion.key, deletion.run)
        async with self._transaction() as db:
            rows = await _erase(db, deletion, [*ERASED] if deletion.scope == "job" else FILE_TABLES)
            if deletion.scope == "job":
                await db.execute(SQL["stop_tasks"], *runs, hold_s)
                await db.execute(SQL["detach_usage"], *runs, deletion.id)
                await db.execute(SQL["erase_strays"], *deletion.key)
                await db.execute(SQL["erase_answers"], *deletion.key)
            if not any(rows.values()):
                return deletion
            receipt = await db.fetchval(SQL["lock_receipt"], deletion.id)
            await db.execute(SQL["count_erased"], deletion.id, counted(receipt, rows))
        return replace(deletion, receipt=counted(receipt, rows))

    async def put_off_deletion(self, deletion: Deletion, due_at: datetime, error: str) -> None:
        """Store why the pass has failed, and when the next is due."""
        await self._fetch("put_off_deletion", deletion.id, deletion.attempts, due_at, error)

    async def keep_deletion(self, deletion: Deletion) -> bool:
        """Store what a pass has reached."""
        progress = (deletion.due_at, deletion.done_at, deletion.error, deletion.copies, deletion.receipt)
        async with self._transaction() as db:
            kept = await db.fetchval(SQL["keep_deletion"], deletion.id, deletion.attempts, *progress)
            if kept is not None and deletion.done_at is not None:
                await db.execute(SQL["forget_tasks"], *deletion.key)
        return kept is not None


async def _erase(db: Any, deletion: Deletion, tables: Sequence[str]) -> dict[str, int]:
    """Delete the deletion's rows of these tables; how many, by table."""
    erased = {}
    for table in tables:
        also = FILE_CONDITIONS.get(table, "true") if deletion.scope == "files" else "true"
        statement = (
            f"DELETE FROM {table} WHERE tenant_id = $1 AND job_id = $2 AND {ERASED[table]} AND {also} "  # noqa: S608 - constants
            "AND $3::int IS NOT NULL AND $4::timestamptz IS NOT NULL"
        )
        status = await db.execute(statement, *deletion.key, deletion.run, deletion.requested_at)
        erased[table] = int(status.rpartition(" ")[2])
    return erased
