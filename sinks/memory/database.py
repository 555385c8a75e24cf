"""The database's double: the same rules over dictionaries. Everything goes through JSON, so what cannot be stored fails
here too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from schemas import topics
from schemas.errors import StorageRefused
from schemas.ids import Key
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Adjudication, File, Job, ProviderRequest, Status, Transcript, Usage
from schemas.jobs.transitions import Rows, Written, advance
from schemas.messages import Message
from sinks import Claim, Stray, Traffic
from sinks.ports import provider_slots
from sinks.ports.upkeep import AWAITED, StuckJob

_JOB = TypeAdapter(Job)
_METADATA = TypeAdapter(dict[str, Any])
_REQUEST = TypeAdapter(ProviderRequest)
_USAGE = TypeAdapter(Usage)
_ADJUDICATION = TypeAdapter(Adjudication)
_TEXTS: TypeAdapter[tuple[Transcript | None, str | None]] = TypeAdapter(tuple[Transcript | None, str | None])

#: A NUL in JSON, behind an even number of backslashes.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def _stored(kind: TypeAdapter[Any], value: object) -> bytes:
    """The value as JSON. Raises StorageRefused for what PostgreSQL does not store either."""
    try:
        data = kind.dump_json(value)
    except PydanticSerializationError as exc:  # a lone surrogate
        raise StorageRefused(f"the database does not store this ({type(exc).__name__})") from exc
    if _NUL.search(data):
        raise StorageRefused("the database does not store this (NUL)")
    return data


@dataclass
class MemoryDatabase:
    """`sinks.Database` in this process. `clock` is its now; `outbox` is what a relay would publish, with due times."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    outbox: list[tuple[datetime, Message]] = field(default_factory=list)
    transcripts: dict[tuple[str, str, int], Transcript] = field(default_factory=dict)
    files: dict[tuple[str, str, int, str], File] = field(default_factory=dict)
    audit: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    _inbox: set[tuple[str, UUID]] = field(default_factory=set)
    _jobs: dict[Key, bytes] = field(default_factory=dict)
    _metadata: dict[Key, bytes] = field(default_factory=dict)
    #: By (tenant, reference).
    _references: dict[tuple[str, str], Key] = field(default_factory=dict)
    #: By (tenant, job, run), then provider.
    _requests: dict[tuple[str, str, int], dict[str, bytes]] = field(default_factory=dict)
    #: By provider and its id.
    _strays: dict[tuple[str, str], Stray] = field(default_factory=dict)
    #: Failures in a row, end of the pause, first moment that nobody reserved.
    _providers: dict[str, tuple[int, datetime | None, datetime | None]] = field(default_factory=dict)
    #: First free moment in the line of calls that are about to be made.
    _lines: dict[str, datetime] = field(default_factory=dict)
    _leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    _usage: dict[tuple[str, str, int, str, str, str], bytes] = field(default_factory=dict)
    _adjudications: dict[tuple[str, str], bytes] = field(default_factory=dict)
    #: By job: its version when it was revived, how often, and when last.
    _revivals: dict[Key, tuple[int, int, datetime]] = field(default_factory=dict)
    #: By URI: whose blob is about to be written, and since when.
    _intents: dict[str, tuple[Key, datetime]] = field(default_factory=dict)

    async def commit(self, steps: Sequence[Step]) -> list[Written | None]:
        """All steps at once, or none."""
        before = self._copy() if len(steps) > 1 else {}
        try:
            return [self._commit(step) for step in steps]
        except BaseException:
            vars(self).update(before)
            raise

    def _copy(self) -> dict[str, Any]:
        copies = {name: copy(value) for name, value in vars(self).items() if isinstance(value, dict | set | list)}
        return copies | {"_requests": {run: dict(rows) for run, rows in self._requests.items()}}

    def _commit(self, step: Step) -> Written | None:
        if (step.stage, step.event_id) in self._inbox:
            return None
        key = step.outcome.key
        job = self._load(*key) if key else None
        rows = Rows(job, self._of_run(*key, job.run) if key and job else {}, self._namesake(step.outcome.create))
        written = advance(step, rows, self.clock())
        row = _stored(_JOB, replace(rows.job, metadata=None)) if rows.job else b""
        stored = {p: _stored(_REQUEST, r) for p, r in rows.requests.items()}
        _stored(_TEXTS, (written.transcript, step.outcome.error))
        if rows.job is not None and key:
            if rows.job.metadata is not None:
                self._metadata[key] = _METADATA.dump_json(rows.job.metadata)
            self._jobs[key] = row
            if rows.job.reference is not None:
                self._references[rows.job.tenant_id, rows.job.reference] = key
            self._requests.setdefault((*key, rows.job.run), {}).update(stored)
        if step.outcome.remembered and not written.forgotten:
            self._inbox.add((step.stage, step.event_id))
        self._keep(step, written, rows.job)
        return written

    def _namesake(self, job: Job | None) -> Job | None:
        key = self._references.get((job.tenant_id, job.reference)) if job and job.reference else None
        return self._load(*key) if job and key and key != job.key else None

    def _keep(self, step: Step, written: Written, job: Job | None) -> None:
        if (text := written.transcript) is not None:
            self.transcripts.setdefault((text.tenant_id, text.job_id, text.run), text)
        self._keep_usage(written.usage)
        self.files.update({(f.tenant_id, f.job_id, f.run, f.kind): f for f in written.files})
        for file in step.outcome.files:
            if written.applied:
                self._intents.pop(file.uri, None)
            elif file.uri in self._intents:
                self._intents[file.uri] = (self._intents[file.uri][0], datetime.min.replace(tzinfo=UTC))
        self.outbox = [(due, m) for due, m in self.outbox if m.id not in written.cancelled]
        self.outbox += [(self.clock() + timedelta(seconds=s), m) for m, s in written.messages]
        if job is not None and step.outcome.audit:
            what = step.outcome.audit if written.applied else "repeated"
            self.audit.append((job.job_id, step.stage, what, step.outcome.error))

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """The job's row."""
        return self._load(tenant_id, job_id)

    async def metadata(self, tenant_id: str, job_id: str) -> dict[str, Any]:
        """What the producer sent along."""
        return _METADATA.validate_json(self._metadata.get((tenant_id, job_id), b"{}"))

    async def named(self, tenant_id: str, job_id: str, reference: str | None) -> list[Job]:
        """The jobs with this id or this reference; see `sinks.Database`."""
        other = self._references.get((tenant_id, reference)) if reference is not None else None
        keys = dict.fromkeys(key for key in ((tenant_id, job_id), other) if key is not None)
        return [job for key in keys if (job := self._load(*key)) is not None]

    async def requests(self, tenant_id: str, job_id: str, run: int) -> list[ProviderRequest]:
        """The run's provider requests."""
        return [row for _, row in sorted(self._of_run(tenant_id, job_id, run).items())]

    async def claim(
        self, tenant_id: str, job_id: str, run: int, provider: str, seconds: float
    ) -> Claim | ProviderRequest | None:
        """Commit the intention to submit; see `sinks.Database`."""
        row = self._of_run(tenant_id, job_id, run).get(provider)
        if row is None:
            return None
        if row.state != "waiting":
            return row
        until = self.clock() + timedelta(seconds=seconds)
        claimed = replace(row, state="intended", token=row.token + 1, claimed_until=until)
        self._write(claimed)
        return Claim(claimed, strays=any(name == provider for name, _ in self._strays))

    def _write(self, row: ProviderRequest) -> None:
        self._requests[row.tenant_id, row.job_id, row.run][row.provider] = _REQUEST.dump_json(row)

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next look at a request due now."""
        rows = [_REQUEST.validate_json(of[provider]) for of in self._requests.values() if provider in of]
        jobs = {(r.tenant_id, r.job_id) for r in rows if r.state == "submitted" and r.provider_id == provider_id}
        return bool(self._due(topics.requests(provider).name, jobs))

    def _due(self, topic: str, jobs: Collection[tuple[str | None, str | None]]) -> list[UUID]:
        """The put-off events of these jobs on a topic become due."""
        now = self.clock()
        waiting = [m.id for due, m in self.outbox if m.topic == topic and (m.tenant_id, m.job_id) in jobs and due > now]
        self.outbox = [(now if m.id in waiting else due, m) for due, m in self.outbox]
        return waiting

    async def expedite_job(self, tenant_id: str, job_id: str, provider: str) -> bool:
        """The same for a request of any state."""
        return bool(self._due(topics.requests(provider).name, [(tenant_id, job_id)]))

    async def doubtful(self, limit: int) -> list[ProviderRequest]:
        """Requests that a person should know of; see `sinks.Database`."""
        rows = self._rows()
        newest = {(row.tenant_id, row.job_id, row.provider): row for row in sorted(rows, key=lambda row: row.run)}
        return [row for row in rows if row.state == "parked" or (row.abandoned_at and row in newest.values())][:limit]

    async def strays(self, provider: str) -> list[Stray]:
        """Requests that no row knows; see `sinks.Database`."""
        known = {(row.provider, row.provider_id) for row in self._rows()}
        self._strays = {key: stray for key, stray in self._strays.items() if key not in known}
        return [stray for (name, _), stray in sorted(self._strays.items()) if name == provider]

    async def keep_strays(self, strays: Sequence[Stray]) -> list[Stray]:
        """Remember requests that no row knows; see `sinks.Database`."""
        known = {(row.provider, row.provider_id) for row in self._rows()}
        kept = {key: stray for stray in strays if (key := (stray.provider, stray.provider_id)) not in known}
        self._strays |= kept
        return list(kept.values())

    async def forget_stray(self, provider: str, provider_id: str) -> bool:
        """It is none of ours."""
        return self._strays.pop((provider, provider_id), None) is not None

    def _rows(self) -> list[ProviderRequest]:
        return [_REQUEST.validate_json(data) for run in self._requests.values() for data in run.values()]

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int, provider: str, slots: int) -> bool:
        """Whether the request may be under way now; see `sinks.Database`."""
        row = self._of_run(tenant_id, job_id, run)[provider]
        if row.state != "waiting" or row.admitted_at:
            return True
        _, rows, queue = self._traffic(provider)
        job = self._load(tenant_id, job_id)
        if job and not queue and provider_slots.free(slots, len(rows), 9 - job.priority):
            placed = replace(row, admitted_at=self.clock())
        else:
            placed = replace(row, queued_at=row.queued_at or self.clock())
        self._write(placed)
        return placed.admitted_at is not None

    def _traffic(self, provider: str) -> tuple[Counter[str], list[ProviderRequest], list[tuple[int, ProviderRequest]]]:
        """How much each tenant has under way, those requests, and the queue with its urgencies, the oldest first."""
        rows = [_REQUEST.validate_json(run[provider]) for run in self._requests.values() if provider in run]
        busy = [r for r in rows if r.state in ("intended", "submitted") or (r.state == "waiting" and r.admitted_at)]
        queue = [r for r in rows if r.state == "waiting" and r.queued_at and not r.admitted_at]
        jobs = [(r, self._load(r.tenant_id, r.job_id)) for r in queue]
        ranked = sorted(((9 - job.priority, r) for r, job in jobs if job), key=lambda q: q[1].queued_at or self.clock())
        return Counter(r.tenant_id for r in busy), busy, ranked

    async def grant_slots(self, provider: str, slots: int | None) -> Traffic:
        """Give free places to those who queue; see `sinks.Database`."""
        topic = topics.requests(provider).name
        tenants, busy, queue = self._traffic(provider)
        under_way = len(busy)
        while slots is not None and queue:
            urgency, row = min(queue, key=lambda q: (q[0], tenants[q[1].tenant_id], q[1].queued_at))
            if not provider_slots.free(slots, under_way, urgency):
                break
            queue.remove((urgency, row))
            if not self._due(topic, {(row.tenant_id, row.job_id)}):
                continue
            self._write(replace(row, admitted_at=self.clock()))
            tenants[row.tenant_id] += 1
            under_way += 1
        _, _, queue = self._traffic(provider)
        failures, paused_until, _ = self._providers.get(provider, (0, None, None))
        now = self.clock()
        parked = sum((row.provider, row.state) == (provider, "parked") for row in self._rows())
        paused = paused_until if paused_until and paused_until > now else None
        return Traffic(under_way, len(queue), failures, paused, parked)

    async def waiting_uploads(self) -> dict[str, int]:
        """Tenants whose uploads wait for a place; see `sinks.Database`."""
        waiting: dict[str, int] = {}
        for job in self._queued_uploads():
            waiting[job.tenant_id] = min(waiting.get(job.tenant_id, 9), 9 - job.priority)
        return waiting

    def _queued_uploads(self) -> list[Job]:
        jobs = map(_JOB.validate_json, self._jobs.values())
        return [job for job in jobs if job.status == "uploaded" and job.queued_at]

    async def admit_uploads(self, held: Mapping[str, int], free: int) -> list[Key]:
        """Give places to uploads that wait for one; see `sinks.Database`."""
        turns: Counter[tuple[int, str]] = Counter()
        ranked = []
        for job in sorted(self._queued_uploads(), key=lambda job: (job.queued_at or self.clock(), job.job_id)):
            lane = 9 - job.priority, job.tenant_id
            turns[lane] += 1
            ranked.append((lane[0], held.get(job.tenant_id, 0) + turns[lane], job.queued_at, job.key))
        heads = [key for *_, key in sorted(ranked) if held.get(key[0], 0) < free][:free]
        chosen = provider_slots.shared(heads, held, free)
        for key in chosen:
            self._jobs[key] = _JOB.dump_json(replace(_JOB.validate_json(self._jobs[key]), queued_at=None))
        self._due(topics.INTAKE_DUE.name, chosen)
        return sorted(chosen)

    async def open_jobs(self, tenant_id: str, statuses: Collection[str], after: str, limit: int) -> list[Key]:
        """A tenant's jobs that have not ended; see `agents.upkeep.cancelling.Cancellable`."""
        jobs = map(_JOB.validate_json, self._jobs.values())
        wanted = (j.key for j in jobs if j.tenant_id == tenant_id and j.status in statuses and j.job_id > after)
        return sorted(wanted)[:limit]

    async def register_worker(self, role: str, holder: str, seconds: float) -> int:
        """How many processes have a role; see `sinks.Database`."""
        now = self.clock()
        self._leases[f"{role}/{holder}"] = (holder, now + timedelta(seconds=seconds))
        return sum(key.startswith(f"{role}/") and until > now for key, (_, until) in self._leases.items())

    async def reserve_calls(self, provider: str, calls: int, interval_s: float) -> float:
        """Reserve moments for calls; see `sinks.Database`."""
        failures, paused_until, next_at = self._providers.get(provider, (0, None, None))
        first = max(filter(None, (paused_until, next_at, self.clock())))
        self._providers[provider] = (failures, paused_until, first + timedelta(seconds=calls * interval_s))
        return (first - self.clock()).total_seconds()

    async def space_calls(self, provider: str, calls: int, interval_s: float, within_s: float) -> float | None:
        """Stand in line; see `sinks.Database`."""
        now = self.clock()
        first = max(self._lines.get(provider, now), now)
        if (first - now).total_seconds() > within_s:
            return None
        self._lines[provider] = first + timedelta(seconds=calls * interval_s)
        return (first - now).total_seconds()

    async def provider_failed(self, provider: str, retry_after: float | None) -> None:
        """Count a failed call; see `sinks.Database`."""
        failures, paused_until, next_at = self._providers.get(provider, (0, None, None))
        counted = 0 if paused_until and paused_until > self.clock() else failures + 1
        until = self.clock() + timedelta(seconds=provider_slots.pause_s(counted, retry_after))
        self._providers[provider] = (counted or failures, max(filter(None, (paused_until, until))), next_at)

    async def provider_worked(self, provider: str) -> None:
        """Forget failed calls."""
        _, paused_until, next_at = self._providers.get(provider, (0, None, None))
        self._providers[provider] = (0, paused_until, next_at)

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease."""
        other, until = self._leases.get(key, (holder, self.clock()))
        if other != holder and until > self.clock():
            return False
        self._leases[key] = (holder, self.clock() + timedelta(seconds=seconds))
        return True

    async def release(self, key: str, holder: str) -> None:
        """Give a lease back."""
        if self._leases.get(key, ("", None))[0] == holder:
            del self._leases[key]

    @property
    def usage(self) -> list[Usage]:
        """Every row, in the order of writing."""
        return [_USAGE.validate_json(data) for data in self._usage.values()]

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up."""
        self._keep_usage(rows)

    def _keep_usage(self, rows: Sequence[Usage]) -> None:
        for row in rows:
            key = row.tenant_id, row.job_id, row.run, row.provider, row.unit, row.ref
            self._usage.setdefault(key, _USAGE.dump_json(row))

    async def adjudications(
        self, tenant_id: str, job_id: str, run: int, questions: Sequence[str]
    ) -> list[Adjudication]:
        """What is known about these questions; see `sinks.Database`."""
        stored = (self._adjudications.get((tenant_id, question)) for question in sorted(set(questions)))
        rows = [_ADJUDICATION.validate_json(data) for data in stored if data]
        return [row for row in rows if row.fault is None or (row.job_id, row.run) == (job_id, run)]

    async def keep_adjudications(self, rows: Sequence[Adjudication]) -> None:
        """Remember answers and faults; see `sinks.Database`."""
        for row in rows:
            key = (row.tenant_id, row.question)
            stored = self._adjudications.get(key)
            if stored is None or _ADJUDICATION.validate_json(stored).fault is not None:
                self._adjudications[key] = _ADJUDICATION.dump_json(row)

    async def stuck_jobs(self, status: Status, before: datetime, limit: int) -> list[StuckJob]:
        """Jobs for which nothing waits; see `sinks.ports.upkeep.Upkeep`."""
        jobs = [job for job in map(_JOB.validate_json, self._jobs.values()) if job.status == status]
        idle = [job for job in jobs if (job.updated_at or before) < before and self._revived_at(job) < before]
        stuck = (self._stuck(job) for job in sorted(idle, key=lambda job: job.updated_at or before))
        return [one for one in stuck if one is not None][:limit]

    def _revived_at(self, job: Job) -> datetime:
        return self._revivals.get(job.key, (0, 0, datetime.min.replace(tzinfo=UTC)))[2]

    def _stuck(self, job: Job) -> StuckJob | None:
        waiting = {m.topic for _, m in self.outbox if (m.tenant_id, m.job_id) == job.key and m.run in (None, job.run)}
        version, times, _ = self._revivals.get(job.key, (0, 0, None))
        times = times if version == job.version else 0
        if job.status != "transcribing":
            return None if waiting & {*AWAITED[job.status]} else StuckJob(job, times=times)
        rows = self._of_run(*job.key, job.run).values()
        silent = sorted(r.provider for r in rows if not r.ended and topics.requests(r.provider).name not in waiting)
        without_deadline = topics.RECONCILE_DUE.name not in waiting
        return StuckJob(job, tuple(silent), without_deadline, times) if silent or without_deadline else None

    async def note_revivals(self, jobs: Sequence[Job]) -> None:
        """Count revivals; see `sinks.ports.upkeep.Upkeep`."""
        for job in jobs:
            version, times, _ = self._revivals.get(job.key, (0, 0, None))
            self._revivals[job.key] = (job.version, times + 1 if version == job.version else 1, self.clock())

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Remember a blob that is about to be written; see `sinks.ports.upkeep.Upkeep`."""
        self._intents[uri] = (key, self.clock())

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """Blobs that nothing refers to; see `sinks.ports.upkeep.Upkeep`."""
        orphans = []
        for uri, (key, at) in sorted(self._intents.items(), key=lambda intent: intent[1][1]):
            job, age = self._load(*key), (self.clock() - at).total_seconds()
            if age > age_s or (age > settled_s and job is not None and job.status != "uploaded"):
                orphans.append(uri)
        wanted = {file.uri for file in self.files.values()}
        await self.forget_blobs([uri for uri in orphans if uri in wanted])
        return [uri for uri in orphans if uri not in wanted][:limit]

    async def forget_blobs(self, uris: Sequence[str]) -> None:
        """These are gone, or referred to."""
        for uri in uris:
            self._intents.pop(uri, None)

    async def now(self) -> datetime:
        """The clock."""
        return self.clock()

    async def close(self) -> None:
        """Nothing to release."""

    def _load(self, tenant_id: str, job_id: str) -> Job | None:
        data = self._jobs.get((tenant_id, job_id))
        return _JOB.validate_json(data) if data else None

    def _of_run(self, tenant_id: str, job_id: str, run: int) -> dict[str, ProviderRequest]:
        rows = self._requests.get((tenant_id, job_id, run), {})
        return {provider: _REQUEST.validate_json(data) for provider, data in rows.items()}
