"""The database on PostgreSQL: many steps a transaction, rows locked, the rules of `schemas.jobs.transitions`."""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from typing import Any

import asyncpg
import orjson

from schemas import topics
from schemas.events.job import StepState
from schemas.ids import Key, job_key
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Adjudication, Job, ProviderRequest, Status, Usage
from schemas.jobs.transitions import Rows, Written, advance
from schemas.messages import Message, dump_headers
from sinks import Claim, Stray, Traffic
from sinks.ports import provider_slots
from sinks.ports.upkeep import AWAITED, StuckJob
from sinks.postgres import queries
from sinks.postgres.coalesce import Coalesce
from sinks.postgres.connect import acts_as, connecting, worker_session
from sinks.postgres.errors import AWAY

SQL = queries.load("steps", "work", "relay", "retention", "provider_slots", "upkeep")

#: Seconds that any one statement may take before it counts as an outage.
STATEMENT_S = 15.0

_REQUEST_COLUMNS = tuple(f.name for f in fields(ProviderRequest))
#: Rows are read without their metadata.
_JOB_COLUMNS = tuple(f.name for f in fields(Job) if f.name != "metadata")


async def connect_pool(dsn: str, *, role: str = "concord_worker", size: int = 8) -> asyncpg.Pool[asyncpg.Record]:
    """A pool whose connections act as `role`, and speak JSON.

    Raises Unavailable while the server is away, Misconfigured (a SettingsError) when no waiting will help.
    """
    with connecting():
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=10,
            command_timeout=STATEMENT_S,
            init=partial(_prepare, role),
            reset=_nothing_to_reset,
            server_settings=worker_session(role),
        )


async def _prepare(role: str, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await acts_as(connection, role)
    await connection.set_type_codec(
        "jsonb",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
        schema="pg_catalog",
        format="binary",
    )


async def _nothing_to_reset(_: object) -> None:
    """Only transactions change settings here, and they take them back: asyncpg's own reset would be a round trip for
    nothing.
    """


def shard_of(message: Message, shards: int) -> int:
    """The relay shard of a message: all of one job's go through the same, in order."""
    whose = message.tenant_id is not None and message.job_id is not None
    text = job_key(message.tenant_id or "", message.job_id or "").encode() if whose else message.key or b""
    return zlib.crc32(text) % shards


#: The current run's provider requests, by job and provider.
_Requests = defaultdict[Key, dict[str, ProviderRequest]]


class Postgres:
    """`sinks.Database` on a pool."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        self._pool = pool
        self._shards = shards
        self._job = Coalesce(self._jobs)
        self._named = Coalesce(self._many_named)
        self._requests_of = Coalesce(self._many_requests)
        self._claims = Coalesce(self._claim)
        self._places = Coalesce(self._place)
        self._intended = Coalesce(self._intend_blobs)

    async def close(self) -> None:
        """End the pool, by force after some seconds."""
        try:
            async with asyncio.timeout(3):
                await self._pool.close()
        except AWAY:
            self._pool.terminate()

    async def commit(self, steps: Sequence[Step]) -> list[Written | None]:
        """All steps in one transaction; see `sinks.Database`."""
        async with queries.transaction(self._pool) as connection:
            return await self._commit(connection, steps)

    async def _commit(self, db: Any, steps: Sequence[Step]) -> list[Written | None]:
        events = [(s.stage, s.event_id) for s in steps if s.outcome.remembered]
        new = {tuple(row) for row in (await db.fetch(SQL["insert_inbox"], *_split(events, 2)) if events else [])}
        jobs, requests, now = await self._lock(db, steps)
        before = dict(jobs), {row for rows in requests.values() for row in rows.values()}
        batch = _Batch(jobs, requests, now)
        done: list[Written | None] = []
        for step in steps:
            identity = (step.stage, step.event_id)
            fresh = identity in new or not step.outcome.remembered
            new.discard(identity)
            done.append(batch.advance(step) if fresh else None)
        forgotten = [step for step, written in zip(steps, done, strict=True) if written and written.forgotten]
        if forgotten:
            await db.execute(SQL["forget_inbox"], [s.stage for s in forgotten], [s.event_id for s in forgotten])
        await self._write_rows(db, jobs, requests, *before)
        await self._write_rest(db, [(s, w) for s, w in zip(steps, done, strict=True) if w is not None], jobs)
        return done

    async def _lock(self, db: Any, steps: Sequence[Step]) -> tuple[dict[Key, Job], _Requests, datetime]:
        keys = sorted({s.outcome.key for s in steps if s.outcome.key is not None})
        made = [s.outcome.create for s in steps if s.outcome.create is not None]
        references = sorted({(job.tenant_id, job.reference) for job in made if job.reference is not None})
        rows = await db.fetch(SQL["lock_jobs"], *_split(keys, 2), *_split(references, 2)) if keys else []
        jobs = {job.key: job for job in map(_job, rows)}
        now = max((row["db_now"] for row in rows), default=None) or await db.fetchval(SQL["now"])
        requests: _Requests = defaultdict(dict)
        runs = [(*key, job.run) for key, job in jobs.items()]
        for row in map(_request, await db.fetch(SQL["lock_requests"], *_split(runs, 3)) if runs else []):
            requests[row.tenant_id, row.job_id][row.provider] = row
        return jobs, requests, now

    async def _write_rows(
        self, db: Any, jobs: dict[Key, Job], requests: _Requests, old_jobs: dict[Key, Job], old: set[ProviderRequest]
    ) -> None:
        changed = [job for key, job in sorted(jobs.items()) if old_jobs.get(key) is not job]
        if changed:
            try:
                written = await db.fetch(
                    SQL["upsert_jobs"], *_columns([_insertable(job) for job in changed], _JOB_ORDER)
                )
            except asyncpg.UniqueViolationError as exc:
                raise asyncpg.SerializationError("a reference was taken between lock and write") from exc
            if len(written) != len(changed):
                # Two workers created the same job at this moment and the other was first. Nothing of this batch
                # happened yet.
                raise asyncpg.SerializationError("a job appeared between lock and write")
        begun = [job for job in changed if job.run > 1 and job.run != getattr(old_jobs.get(job.key), "run", 0)]
        if begun:
            names = ["tenant_id", "job_id", "filename", "audio_uri", "priority", "metadata"]
            await db.executemany(SQL["replace_upload"], list(zip(*_columns(begun, names), strict=True)))
        asked = [row for rows in requests.values() for row in rows.values() if row not in old]
        if asked:
            asked.sort(key=lambda row: (row.tenant_id, row.job_id, row.provider))
            await db.execute(SQL["upsert_requests"], *_columns(asked, _REQUEST_ORDER))

    async def _write_rest(self, db: Any, applied: list[tuple[Step, Written]], jobs: dict[Key, Job]) -> None:
        transcripts = [w.transcript for _, w in applied if w.transcript is not None]
        if transcripts:
            rows = zip(*_columns(transcripts, _TRANSCRIPT_ORDER), strict=True)
            await db.executemany(SQL["insert_transcript"], list(rows))
        files = {(f.tenant_id, f.job_id, f.run, f.kind): f for _, w in applied for f in w.files}
        if files:
            await db.execute(SQL["upsert_files"], *_columns(files.values(), _FILE_ORDER))
        refused = [f.uri for s, w in applied if not w.applied for f in s.outcome.files]
        if files or refused:
            await db.execute(SQL["settle_blobs"], [f.uri for f in files.values()], refused)
        usage = [row for _, w in applied for row in w.usage]
        if usage:
            await db.execute(SQL["record_usage"], *_columns(usage, _USAGE_ORDER))
        audits = [row for s, w in applied for row in _audit(s, w, jobs)]
        if audits:
            await db.execute(SQL["insert_audit"], *map(list, zip(*audits, strict=True)))
        await self._emit(db, applied)

    async def _emit(self, db: Any, applied: list[tuple[Step, Written]]) -> None:
        cancelled = [id for _, w in applied for id in w.cancelled]
        if cancelled:
            await db.execute(SQL["cancel_scheduled"], cancelled)
        await self._insert(db, [m for _, w in applied for m in w.messages])

    async def _insert(self, db: Any, messages: Sequence[tuple[Message, float]]) -> None:
        if messages:
            rows = [_outbox_row(m, s, self._shards) for m, s in messages]
            await db.execute(SQL["insert_outbox"], *map(list, zip(*rows, strict=True)))
            await db.execute(SQL["wake_relays"], sorted({row[0] for row in rows}))

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """The job's row."""
        return await self._job((tenant_id, job_id))

    async def _jobs(self, keys: Sequence[Key]) -> list[Job | None]:
        jobs = {job.key: job for job in map(_job, await self._fetch("jobs", *_split(keys, 2)))}
        return [jobs.get(key) for key in keys]

    async def metadata(self, tenant_id: str, job_id: str) -> dict[str, Any]:
        """What the producer sent along; see `sinks.Database`."""
        rows = await self._fetch("metadata", tenant_id, job_id)
        return rows[0]["metadata"] if rows else {}

    async def named(self, tenant_id: str, job_id: str, reference: str | None) -> list[Job]:
        """The jobs with this id or this reference; see `sinks.Database`."""
        return await self._named((tenant_id, job_id, reference))

    async def _many_named(self, names: Sequence[tuple[str, str, str | None]]) -> list[list[Job]]:
        jobs: list[list[Job]] = [[] for _ in names]
        for row in await self._fetch("named", *_split(names, 3)):
            jobs[row["number"] - 1].append(_job(row))
        return jobs

    async def requests(self, tenant_id: str, job_id: str, run: int) -> list[ProviderRequest]:
        """The run's provider requests."""
        return await self._requests_of((tenant_id, job_id, run))

    async def _many_requests(self, runs: Sequence[tuple[str, str, int]]) -> list[list[ProviderRequest]]:
        requests: dict[tuple[str, str, int], list[ProviderRequest]] = {run: [] for run in runs}
        for row in map(_request, await self._fetch("requests", *_split(runs, 3))):
            requests[row.tenant_id, row.job_id, row.run].append(row)
        return [requests[run] for run in runs]

    async def claim(
        self, tenant_id: str, job_id: str, run: int, provider: str, seconds: float
    ) -> Claim | ProviderRequest | None:
        """Commit the intention to submit; see `sinks.Database`."""
        claim = await self._claims((tenant_id, job_id, run, provider, seconds))
        # Two askers of one batch share its answer, but only one may submit.
        return claim.pop() if claim else await self._request(tenant_id, job_id, run, provider)

    async def _claim(self, wanted: Sequence[tuple[str, str, int, str, float]]) -> list[list[Claim]]:
        names = _split(wanted, 5)
        rows = await self._fetch("claim", *names[:4], max(names[4]))
        claims = [Claim(_request(row), strays=row["strays"]) for row in rows]
        held = {(c.request.tenant_id, c.request.job_id, c.request.run, c.request.provider): [c] for c in claims}
        return [held.get(key[:4], []) for key in wanted]

    async def _request(self, tenant_id: str, job_id: str, run: int, provider: str) -> ProviderRequest | None:
        rows = await self._requests_of((tenant_id, job_id, run))
        return next((row for row in rows if row.provider == provider), None)

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next look at a request due now; see `sinks.Database`."""
        return bool(await self._fetch("expedite_poll", provider, provider_id, topics.requests(provider).name))

    async def expedite_job(self, tenant_id: str, job_id: str, provider: str) -> bool:
        """The same for a request of any state."""
        return bool(await self._fetch("expedite_job", tenant_id, job_id, topics.requests(provider).name))

    async def doubtful(self, limit: int) -> list[ProviderRequest]:
        """Requests that a person should know of; see `sinks.Database`."""
        return [_request(row) for row in await self._fetch("doubtful", limit)]

    async def strays(self, provider: str) -> list[Stray]:
        """Requests that no row knows; see `sinks.Database`."""
        await self._fetch("drop_known_strays", provider)
        return [_stray(row) for row in await self._fetch("strays", provider)]

    async def keep_strays(self, strays: Sequence[Stray]) -> list[Stray]:
        """Remember requests that no row knows; see `sinks.Database`."""
        rows = await self._fetch("keep_strays", *_columns(strays, _STRAY_ORDER)) if strays else []
        return [_stray(row) for row in rows]

    async def forget_stray(self, provider: str, provider_id: str) -> bool:
        """It is none of ours."""
        return bool(await self._fetch("forget_stray", provider, provider_id))

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int, provider: str, slots: int) -> bool:
        """Whether the request may be under way now; see `sinks.Database`."""
        return await self._places((provider, slots, tenant_id, job_id, run))

    async def _place(self, wanted: Sequence[tuple[str, int, str, str, int]]) -> list[bool]:
        placed: set[tuple[str, int, str, str, int]] = set()
        for provider, slots in sorted({key[:2] for key in wanted}):
            asking = [key[2:] for key in wanted if key[:2] == (provider, slots)]
            async with queries.transaction(self._pool) as connection:
                runs = await self._place_at(connection, provider, slots, asking)
            placed |= {(provider, slots, *run) for run in runs}
        return [key in placed for key in wanted]

    async def _place_at(
        self, db: Any, provider: str, slots: int, asking: list[tuple[str, str, int]]
    ) -> set[tuple[str, str, int]]:
        await db.execute(SQL["lock_places"], provider)
        under_way = sum(row["requests"] for row in await db.fetch(SQL["under_way"], provider))
        queue = await db.fetchval(SQL["is_queue"], provider)
        placed, asked = set(), dict[tuple[str, str, int], bool]()
        for row in await db.fetch(SQL["wants"], provider, *_split(asking, 3)):
            run = row["tenant_id"], row["job_id"], row["run"]
            if row["placed"]:
                placed.add(run)
            elif not queue and provider_slots.free(slots, under_way, row["urgency"]):
                under_way += 1
                asked[run] = True
            else:
                asked[run] = False
        if asked:
            await db.execute(SQL["take_places"], provider, *_split(list(asked), 3), list(asked.values()))
        return placed | {run for run, taken in asked.items() if taken}

    async def grant_slots(self, provider: str, slots: int | None) -> Traffic:
        """Give free places to those who queue; see `sinks.Database`."""
        async with queries.transaction(self._pool) as connection:
            return await self._admit(connection, provider, slots)

    async def _admit(self, db: Any, provider: str, slots: int | None) -> Traffic:
        if slots is not None:
            await db.execute(SQL["lock_places"], provider)
        tenants = await db.fetch(SQL["under_way"], provider)
        under_way = sum(row["requests"] for row in tenants)
        if slots is not None and provider_slots.free(slots, under_way, 0):
            busy = [row["tenant_id"] for row in tenants], [row["requests"] for row in tenants]
            heads = await db.fetch(SQL["heads"], provider, provider_slots.free(slots, under_way, 0), *busy)
            admitted = [
                (row["tenant_id"], row["job_id"])
                for n, row in enumerate(heads)
                if provider_slots.free(slots, under_way + n, row["urgency"])
            ]
            if admitted:
                await db.execute(SQL["admit"], provider, *_split(admitted, 2), topics.requests(provider).name)
                under_way += len(admitted)
        state = await db.fetchrow(SQL["provider_state"], provider)
        waiting = await db.fetchrow(SQL["queued"], provider)
        failures, paused_until = state or (0, None)
        return Traffic(under_way, waiting["queued"], failures, paused_until, waiting["parked"])

    async def waiting_uploads(self) -> dict[str, int]:
        """Tenants whose uploads wait for a place; see `sinks.Database`."""
        waiting: dict[str, int] = {}
        for row in await self._fetch("upload_lanes"):
            waiting.setdefault(row["tenant_id"], row["urgency"])
        return waiting

    async def admit_uploads(self, held: Mapping[str, int], free: int) -> list[Key]:
        """Give places to uploads that wait for one; see `sinks.Database`."""
        rows = await self._fetch("upload_heads", free, list(held), list(held.values()))
        chosen = sorted(provider_slots.shared([(row["tenant_id"], row["job_id"]) for row in rows], held, free))
        if not chosen:
            return []
        taken = await self._fetch("admit_uploads", *_split(chosen, 2), topics.INTAKE_DUE.name)
        return [(row["tenant_id"], row["job_id"]) for row in taken]

    async def open_jobs(self, tenant_id: str, statuses: Collection[str], after: str, limit: int) -> list[Key]:
        """A tenant's jobs that have not ended; see `agents.upkeep.cancelling.Cancellable`."""
        rows = await self._fetch("open_jobs", tenant_id, list(statuses), after, limit)
        return [(row["tenant_id"], row["job_id"]) for row in rows]

    async def register_worker(self, role: str, holder: str, seconds: float) -> int:
        """How many processes have a role; see `sinks.Database`."""
        return int((await self._fetch("register_worker", role, holder, seconds))[0][0])

    async def reserve_calls(self, provider: str, calls: int, interval_s: float) -> float:
        """Reserve moments for calls; see `sinks.Database`."""
        return float((await self._fetch("reserve_calls", provider, calls, interval_s))[0][0])

    async def space_calls(self, provider: str, calls: int, interval_s: float, within_s: float) -> float | None:
        """Stand in line; see `sinks.Database`."""
        rows = await self._fetch("space_calls", provider, calls, interval_s, within_s)
        return float(rows[0][0]) if rows else None

    async def provider_failed(self, provider: str, retry_after: float | None) -> None:
        """Count a failed call; see `sinks.Database`."""
        await self._fetch("provider_failed", provider, retry_after, provider_slots.TOLERATED, provider_slots.LONGEST_S)

    async def provider_worked(self, provider: str) -> None:
        """Forget failed calls."""
        await self._fetch("provider_worked", provider)

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease."""
        return bool(await self._fetch("lease", key, holder, seconds))

    async def release(self, key: str, holder: str) -> None:
        """Give a lease back."""
        await self._fetch("release", key, holder)

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up."""
        if rows:
            await self._fetch("record_usage", *_columns(rows, _USAGE_ORDER))

    async def adjudications(
        self, tenant_id: str, job_id: str, run: int, questions: Sequence[str]
    ) -> list[Adjudication]:
        """What is known about these questions; see `sinks.Database`."""
        rows = await self._fetch("adjudications", tenant_id, job_id, run, list(questions))
        return [Adjudication(**{name: row[name] for name in _ADJUDICATION_ORDER}) for row in rows]

    async def keep_adjudications(self, rows: Sequence[Adjudication]) -> None:
        """Remember answers and faults; see `sinks.Database`."""
        if rows:
            last = {(row.tenant_id, row.question): row for row in rows}
            await self._fetch("keep_adjudications", *_columns([last[key] for key in sorted(last)], _ADJUDICATION_ORDER))

    async def now(self) -> datetime:
        """The database's clock."""
        now: datetime = (await self._fetch("now"))[0][0]
        return now

    async def highest_shard(self) -> int:
        """The highest shard with rows in the outbox, or -1."""
        return int((await self._fetch("highest_shard"))[0][0])

    async def idle(self, key: Key | None = None) -> bool:
        """Whether no run is open and nothing is due within seconds, or none and nothing of this job."""
        if key is not None:
            return bool((await self._fetch("job_idle", *key))[0][0])
        return bool((await self._fetch("idle"))[0][0])

    async def forget(self, table: str, days: float, rows: int) -> int | None:
        """Delete a slice of a table's oldest rows; see `agents.upkeep.retention.ExpiresRows`."""
        async with queries.transaction(self._pool) as connection:
            if not await connection.fetchval(SQL["lock_retention"]):
                return None
            return int(await connection.fetchval(SQL[f"expire_{table}"], days, rows))

    async def overdue(self, seconds: float) -> list[Any]:
        """Rows that are due for longer than that, by shard and topic: how many, since when, and what the relay says."""
        return await self._fetch("overdue", seconds)

    async def count_refused(self) -> dict[str, int]:
        """How many rows were set aside because Kafka refuses them, by topic."""
        return {row["topic"]: row["rows"] for row in await self._fetch("count_refused")}

    async def refused(self, limit: int, ids: Sequence[int] | None = None) -> list[Any]:
        """The newest of them, or those of them with these ids."""
        return await self._fetch("refused", limit, None if ids is None else list(ids))

    async def settle_refused(self, plans: Sequence[tuple[int, Message | None]]) -> set[int]:
        """Drop each of these rows and publish what is to come of it; the ids of those that were still there."""
        async with queries.transaction(self._pool) as db:
            there = {row["id"] for row in await db.fetch(SQL["drop_refused"], [id for id, _ in plans])}
            await self._insert(db, [(m, 0.0) for id, m in plans if m is not None and id in there])
        return there

    async def stuck_jobs(self, status: Status, before: datetime, limit: int) -> list[StuckJob]:
        """Jobs for which nothing waits; see `sinks.ports.upkeep.Upkeep`."""
        rows = await self._fetch("stuck_jobs", status, before, limit, list(AWAITED.get(status, ())))
        return [StuckJob(_job(row), tuple(row["providers"]), row["without_deadline"], row["times"]) for row in rows]

    async def note_revivals(self, jobs: Sequence[Job]) -> None:
        """Count revivals; see `sinks.ports.upkeep.Upkeep`."""
        await self._fetch("note_revivals", *_split([(job.tenant_id, job.job_id, job.version) for job in jobs], 3))

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Remember a blob that is about to be written; see `sinks.ports.upkeep.Upkeep`."""
        await self._intended((*key, uri))

    async def _intend_blobs(self, blobs: Sequence[tuple[str, str, str]]) -> list[None]:
        await self._fetch("intend_blobs", *_split(blobs, 3))
        return [None] * len(blobs)

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """Blobs that nothing refers to; see `sinks.ports.upkeep.Upkeep`."""
        rows = await self._fetch("orphan_blobs", settled_s, age_s, limit)
        if wanted := [row["uri"] for row in rows if row["wanted"]]:
            await self.forget_blobs(wanted)
        return [row["uri"] for row in rows if not row["wanted"]]

    async def forget_blobs(self, uris: Sequence[str]) -> None:
        """These are gone, or referred to."""
        await self._fetch("forget_blobs", list(uris))

    async def unended_requests(self, limit: int) -> list[Any]:
        """Requests of ended runs whose end is not known."""
        return await self._fetch("unended_requests", limit)

    async def without_transcript(self, limit: int) -> list[Any]:
        """Completed jobs that have no transcript."""
        return await self._fetch("without_transcript", limit)

    async def files_after(self, tenant_id: str, job_id: str, run: int, kind: str, limit: int) -> list[Any]:
        """Stored files by their key, those behind this one."""
        return await self._fetch("files_after", tenant_id, job_id, run, kind, limit)

    async def known_blobs(self, keys: Sequence[Key]) -> list[Any]:
        """What these jobs refer to; a status of None where there is no such job."""
        return await self._fetch("known_blobs", *_split(keys, 2))

    async def outbox_depth(self) -> list[Any]:
        """Per shard: rows due, rows waiting, age of the oldest due one in seconds."""
        return await self._fetch("outbox_depth")

    async def _fetch(self, name: str, *arguments: Any) -> list[Any]:
        return await queries.fetch(self._pool, SQL[name], *arguments)


class _Batch:
    """The rows that a batch of steps has locked, as they become while the steps are applied one after the other."""

    def __init__(self, jobs: dict[Key, Job], requests: _Requests, now: datetime) -> None:
        self._jobs, self._requests, self._now = jobs, requests, now
        self._references: dict[tuple[str, str], Key] = {}
        for job in jobs.values():
            self._remember(job)

    def advance(self, step: Step) -> Written:
        """Apply one step."""
        key = step.outcome.key
        if key is None:
            return advance(step, Rows(None, {}), self._now)
        rows = Rows(self._jobs.get(key), self._requests[key], self._namesake(step.outcome.create))
        written = advance(step, rows, self._now)
        if rows.job is not None:
            self._jobs[key] = rows.job
            self._remember(rows.job)
        return written

    def _namesake(self, job: Job | None) -> Job | None:
        if job is None or job.reference is None:
            return None
        key = self._references.get((job.tenant_id, job.reference))
        return self._jobs[key] if key is not None and key != job.key else None

    def _remember(self, job: Job) -> None:
        if job.reference is not None:
            self._references[job.tenant_id, job.reference] = job.key


def _audit(step: Step, written: Written, jobs: dict[Key, Job]) -> Iterable[tuple[Any, ...]]:
    outcome = step.outcome
    job = jobs.get(outcome.key) if outcome.key is not None else None
    if job is None or not outcome.audit:
        return
    what = outcome.audit if written.applied else "repeated"
    attempt = step.envelope.attempt if step.envelope else 0
    yield (job.tenant_id, job.job_id, job.run, step.stage, what, step.seconds * 1000, attempt, outcome.error)


def _outbox_row(message: Message, seconds: float, shards: int) -> tuple[Any, ...]:
    whose = message.tenant_id, message.job_id, message.run
    headers = dump_headers(message.headers)
    shard = shard_of(message, shards)
    return (shard, seconds, message.id, message.topic, message.key, message.value, headers, *whose)


_JOB_ORDER = (
    "tenant_id job_id reference run status version filename audio_uri original_uri content_type duration_ms language "
    "priority options metadata steps reason code created_at updated_at completed_at queued_at"
).split()
_REQUEST_ORDER = (
    "tenant_id job_id run provider state marker provider_id token hypothesis_uri confidence word_count language error "
    "submitted_at finished_at audio_url audio_at claimed_until abandoned_at"
).split()
_TRANSCRIPT_ORDER = (
    "tenant_id job_id run text words speakers segments language confidence agreement method provider_confidences "
    "reconciliation_notes quality raw_transcript_uri agent_optimized_uri duration_ms"
).split()
_USAGE_ORDER = "tenant_id job_id run provider unit ref quantity".split()
_ADJUDICATION_ORDER = "tenant_id question job_id run adjudicator choice fault".split()
_STRAY_ORDER = "provider provider_id created urls marker".split()
_FILE_ORDER = "tenant_id job_id run kind uri size_bytes content_type sha256".split()


def _columns(rows: Iterable[Any], names: list[str]) -> list[list[Any]]:
    """Rows as one list per column, for unnest."""
    return [[_value(getattr(row, name)) for row in rows] for name in names]


def _split(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows of so many columns as one list per column, also where there are none."""
    return [[row[n] for row in rows] for n in range(width)]


def _value(value: Any) -> Any:
    if isinstance(value, dict) and any(isinstance(v, StepState) for v in value.values()):
        return {name: step.model_dump(mode="json", exclude_none=True) for name, step in value.items()}
    return value


def _stray(row: Any) -> Stray:
    urls = row["urls"]
    return Stray(**{name: row[name] for name in _STRAY_ORDER} | {"urls": None if urls is None else tuple(urls)})


def _job(row: Any) -> Job:
    values = {name: row[name] for name in _JOB_COLUMNS}
    values["steps"] = {name: StepState.model_validate(step) for name, step in values["steps"].items()}
    return Job(**values, metadata=None)


def _insertable(job: Job) -> Job:
    """A row that is there keeps its metadata; but a row that might be inserted must have some."""
    return replace(job, metadata={}) if job.metadata is None else job


def _request(row: Any) -> ProviderRequest:
    return ProviderRequest(**{name: row[name] for name in _REQUEST_COLUMNS})
