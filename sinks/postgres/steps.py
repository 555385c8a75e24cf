"""Steps on PostgreSQL: many in a transaction, rows locked, the rules of `schemas.jobs.transitions`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import asyncpg

from schemas.ids import Key
from schemas.jobs.deletion import Deletion, late_copies
from schemas.jobs.outcome import Outcome, Step, audit_entry
from schemas.jobs.rows import Enrichment, Job, ProviderRequest
from schemas.jobs.transitions import Rows, Written, advance
from sinks.ports.steps import Steps
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.corrections.voices import write_voices
from sinks.postgres.corrections.writes import write_corrections
from sinks.postgres.outbox import insert_messages
from sinks.postgres.search.writes import write_index
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import (
    AUDIT_LOG,
    DELETIONS,
    ENRICHMENTS,
    FILES,
    JOBS,
    MAILS,
    PROVIDER_REQUESTS,
    SUMMARY_ITEMS,
    TRANSCRIPTS,
    USAGE,
    Table,
)


class PostgresSteps(PostgresPort, Steps):
    """`Steps` on a pool."""

    async def commit(self, steps: Sequence[Step], *, held: str | None = None) -> list[Written | None]:
        """All steps in one transaction; None for a step whose event was committed before."""
        async with self._transaction() as db:
            events = [(step.stage, step.event_id) for step in steps if step.outcome.remembered]
            new = {tuple(row) for row in await _fetch(db, "insert_inbox", events, 2)}
            rows = await _locked(db, steps)
            if held is not None and not await db.fetch(SQL["keep_held_blob"], held):
                raise asyncpg.SerializationError("the blob was not stored in time, and is deleted")
            before = _Before(dict(rows.jobs), set(rows.all_requests))
            results = [_advance(rows, step, new) for step in steps]
            applied = [(step, result) for step, result in zip(steps, results, strict=True) if result is not None]
            await _forget_events(db, [step for step, written in applied if written.forgotten])
            await self._write_rows(db, rows, before)
            await _write_results(db, applied)
            await _resume_deletions(db, [step for step, written in applied if written.too_late])
            await _write_audit(db, applied, rows.jobs)
            await self._emit(db, [written for _, written in applied])
            return results

    async def _write_rows(self, db: Any, rows: _LockedRows, before: _Before) -> None:
        changed = [job for key, job in sorted(rows.jobs.items()) if before.jobs.get(key) is not job]
        if changed:
            await _write_jobs(db, changed)
        begun = [job for job in changed if job.run > 1 and job.run != getattr(before.jobs.get(job.key), "run", 0)]
        if begun:
            await db.executemany(SQL["replace_upload"], list(map(_upload, begun)))
        requests = [row for row in rows.all_requests if row not in before.requests]
        requests.sort(key=lambda row: (row.tenant_id, row.job_id, row.provider))
        await _write(db, "upsert_requests", PROVIDER_REQUESTS, requests)

    async def _emit(self, db: Any, results: Sequence[Written]) -> None:
        cancelled = [id for written in results for id in written.cancelled]
        if cancelled:
            await db.execute(SQL["cancel_scheduled"], cancelled)
        await insert_messages(db, [message for written in results for message in written.messages], self._shards)


@dataclass(frozen=True)
class _Before:
    """The rows as they were when they were locked."""

    jobs: dict[Key, Job]
    requests: set[ProviderRequest]


class _LockedRows:
    """The rows that a batch of steps has locked, as they become while the steps are applied one after the other."""

    def __init__(
        self,
        jobs: dict[Key, Job],
        requests: Sequence[ProviderRequest],
        enrichments: Sequence[Enrichment],
        deletions: Sequence[Deletion],
        now: datetime,
    ) -> None:
        self.jobs, self._now = jobs, now
        #: The newest deletion of each job that does not exist.
        self._deletions = {deletion.key: deletion for deletion in deletions}
        #: The current run's provider requests, by job and provider.
        self._requests: defaultdict[Key, dict[str, ProviderRequest]] = defaultdict(dict)
        for row in requests:
            self._requests[row.tenant_id, row.job_id][row.provider] = row
        #: The current run's enrichments, by job and kind; only of jobs for which a step of the batch concerns them.
        self._enrichments: defaultdict[Key, dict[str, Enrichment]] = defaultdict(dict)
        for enrichment in enrichments:
            self._enrichments[enrichment.tenant_id, enrichment.job_id][enrichment.kind] = enrichment
        self._references: dict[tuple[str, str], Key] = {}
        for job in jobs.values():
            self._remember(job)

    @property
    def all_requests(self) -> Iterator[ProviderRequest]:
        """The provider requests of all jobs."""
        return (row for rows in self._requests.values() for row in rows.values())

    def advance(self, step: Step) -> Written:
        """Apply one step."""
        key = step.outcome.key
        if key is None:
            return advance(step, Rows(None, {}), self._now)
        namesake = self._namesake(step.outcome.create)
        rows = Rows(self.jobs.get(key), self._requests[key], namesake, self._enrichments[key], self._deletions.get(key))
        written = advance(step, rows, self._now)
        if rows.job is not None:
            self.jobs[key] = rows.job
            self._remember(rows.job)
        return written

    def _namesake(self, job: Job | None) -> Job | None:
        if job is None or job.reference is None:
            return None
        key = self._references.get((job.tenant_id, job.reference))
        return self.jobs[key] if key is not None and key != job.key else None

    def _remember(self, job: Job) -> None:
        if job.reference is not None:
            self._references[job.tenant_id, job.reference] = job.key


async def _locked(db: Any, steps: Sequence[Step]) -> _LockedRows:
    """The rows of the steps' jobs, of jobs that have the same references, and of their runs' requests."""
    jobs, now = await _lock_jobs(db, steps)
    requests = await _fetch(db, "lock_requests", [(*job.key, job.run) for job in jobs.values()], 3)
    # A step that completes a run begins enrichments; another that concerns the new rows may be in the same batch.
    concerned = {step.outcome.key for step in steps if _concerns_enrichments(step.outcome)}
    runs = [(*key, job.run) for key, job in jobs.items() if key in concerned]
    enrichments = await _fetch(db, "lock_enrichments", runs, 3)
    missing = sorted({step.outcome.key for step in steps if step.outcome.key is not None} - jobs.keys())
    deletions = await _fetch(db, "deletions_of_jobs", missing, 2)
    return _LockedRows(
        jobs,
        list(map(PROVIDER_REQUESTS.read, requests)),
        list(map(ENRICHMENTS.read, enrichments)),
        list(map(DELETIONS.read, deletions)),
        now,
    )


def _concerns_enrichments(outcome: Outcome) -> bool:
    return bool(outcome.enrichment or outcome.begin or outcome.edit)


async def _lock_jobs(db: Any, steps: Sequence[Step]) -> tuple[dict[Key, Job], datetime]:
    """The steps' jobs and those that have the references of new ones, and the database's time."""
    keys = sorted({step.outcome.key for step in steps if step.outcome.key is not None})
    references = _created_references(steps)
    records = await db.fetch(SQL["lock_jobs"], *by_column(keys, 2), *by_column(references, 2)) if keys else []
    now = max((record["db_now"] for record in records), default=None) or await db.fetchval(SQL["now"])
    return {job.key: job for job in map(JOBS.read, records)}, now


def _created_references(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """The references of new jobs, with their tenants."""
    created = [step.outcome.create for step in steps if step.outcome.create is not None]
    return sorted({(job.tenant_id, job.reference) for job in created if job.reference is not None})


async def _fetch(db: Any, statement: str, keys: Sequence[tuple[Any, ...]], width: int) -> Sequence[Any]:
    """The records of a statement about keys of `width` columns; it is not sent if there are none."""
    return await db.fetch(SQL[statement], *by_column(keys, width)) if keys else ()


async def _write(db: Any, statement: str, table: Table[Any], rows: Collection[Any]) -> None:
    """Write rows with a statement, which is not sent if there are none."""
    if rows:
        await db.execute(SQL[statement], *table.arguments(rows))


def _advance(rows: _LockedRows, step: Step, new: set[tuple[Any, ...]]) -> Written | None:
    """Apply a step unless its event was committed before, or earlier in this batch."""
    event = (step.stage, step.event_id)
    fresh = event in new or not step.outcome.remembered
    new.discard(event)
    return rows.advance(step) if fresh else None


async def _forget_events(db: Any, steps: Sequence[Step]) -> None:
    if steps:
        await db.execute(SQL["forget_inbox"], [step.stage for step in steps], [step.event_id for step in steps])


def _upload(job: Job) -> tuple[Any, ...]:
    """The columns of a new run's upload, which replace those of the run before."""
    return (*job.key, job.filename, job.audio_uri, job.priority, job.metadata)


async def _write_jobs(db: Any, jobs: Sequence[Job]) -> None:
    # A row that exists keeps its metadata; but a row that might be inserted must have some.
    rows = [replace(job, metadata={}) if job.metadata is None else job for job in jobs]
    try:
        written = await db.fetch(SQL["upsert_jobs"], *JOBS.arguments(rows))
    except asyncpg.UniqueViolationError as exc:
        raise asyncpg.SerializationError("a reference was taken between lock and write") from exc
    if len(written) != len(jobs):
        # Two workers created the same job at this moment and the other was first. Nothing of this batch happened yet.
        raise asyncpg.SerializationError("a job appeared between lock and write")


async def _write_results(db: Any, applied: Sequence[tuple[Step, Written]]) -> None:
    transcripts = [written.transcript for _, written in applied if written.transcript is not None]
    if transcripts:
        await db.executemany(SQL["insert_transcript"], TRANSCRIPTS.values(transcripts))
    await write_corrections(db, [written for _, written in applied])
    await write_voices(db, [voice for _, written in applied for voice in written.voices])
    await write_index(db, [written for _, written in applied])
    enrichments = {(e.tenant_id, e.job_id, e.run, e.kind): e for _, written in applied for e in written.enrichments}
    await _write(db, "upsert_enrichments", ENRICHMENTS, enrichments.values())
    await _write(db, "address_mails", MAILS, [w.mail for _, w in applied if w.mail is not None])
    await _write_summaries(db, [written for _, written in applied])
    await _write_files(db, applied)
    await _write(db, "record_usage", USAGE, [row for _, written in applied for row in written.usage])


async def _write_summaries(db: Any, results: Sequence[Written]) -> None:
    summaries = [written.summary for written in results if written.summary is not None]
    await _fetch(db, "drop_summary_items", [(s.tenant_id, s.job_id, s.run) for s in summaries], 3)
    await _write(db, "insert_summary_items", SUMMARY_ITEMS, [item for s in summaries for item in s.items])


async def _resume_deletions(db: Any, steps: Sequence[Step]) -> None:
    """What these steps have stored, or left at a recognizer, belongs to deleted jobs: another pass removes it."""
    if steps:
        rows = [(*(step.outcome.key or ()), late_copies(step.outcome)) for step in steps]
        await db.executemany(SQL["resume_deletion"], rows)


async def _write_files(db: Any, applied: Sequence[tuple[Step, Written]]) -> None:
    files = {(f.tenant_id, f.job_id, f.run, f.kind): f for _, written in applied for f in written.files}
    await _write(db, "upsert_files", FILES, files.values())
    refused = [file.uri for step, written in applied if not written.applied for file in step.outcome.files]
    if files or refused:
        await db.execute(SQL["settle_blobs"], [file.uri for file in files.values()], refused)


async def _write_audit(db: Any, applied: Sequence[tuple[Step, Written]], jobs: dict[Key, Job]) -> None:
    of_steps = [(step, jobs.get(step.outcome.key) if step.outcome.key else None, w.applied) for step, w in applied]
    entries = [audit_entry(step, job, applied=applied) for step, job, applied in of_steps]
    await _write(db, "insert_audit", AUDIT_LOG, [entry for entry in entries if entry is not None])
