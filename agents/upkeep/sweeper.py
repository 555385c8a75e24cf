"""Revives stuck jobs, so that every job ends, and deletes orphan blobs.

A job is stuck if no event for it waits in the outbox, no task for it runs under a lease, and its stage has read all
that was in Kafka when that was first observed: then no event for it exists, and none will be created without help.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from aiokafka.errors import KafkaError

from agents.upkeep.stuck_enrichments import revived_enrichment
from agents.upkeep.stuck_jobs import revived
from schemas import topics
from schemas.errors import ConcordError, Unavailable
from schemas.jobs.outcome import Step
from schemas.jobs.rows import STAGE_OF, OfRun, Status
from sinks.ports.api.direct_uploads import DirectUploads
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.leases import Leases
from sinks.ports.upkeep.blob_intents import BlobIntents
from sinks.ports.upkeep.stuck_jobs import AWAITED, StuckJobs

log = logging.getLogger(__name__)

#: Seconds between two rounds.
LOOK_S: Final = 30.0

#: Seconds for which a job must not have changed before it can count as stuck.
IDLE_S: Final = 60.0

#: Most jobs, and most blobs, in a round.
MANY: Final = 500

#: Seconds after which an intended blob is an orphan if its job has another original or has ended; and in any case.
SETTLED_S: Final = 120.0
OLD_S: Final = 6 * 3600.0

#: Seconds from when a direct upload expires to when its parts are removed: what its last request needs.
PARTS_S: Final = 600.0

#: Seconds of the lease under which one process of the fleet sweeps.
LEASE_S: Final = 3 * LOOK_S

#: Seconds between two looks for orphan blobs, and of the lease under which one process deletes them. What a killed
#: worker leaves behind is gone after a minute, also if that worker had the lease.
BLOBS_S: Final = 10.0
BLOB_LEASE_S: Final = 40.0


#: Names an enrichment: tenant, job and run.
_Key = tuple[str, str, int]
Standing = Collection[_Key]


def _key(row: OfRun) -> _Key:
    return row.tenant_id, row.job_id, row.run


class Database(Clock, Leases, Protocol):
    """What the sweeper asks of the database."""


class Upkeep(StuckJobs, BlobIntents, DirectUploads, Protocol):
    """What the sweeper asks about jobs and blobs."""


class Positions(Protocol):
    """The queries to Kafka that the sweeper needs; see `agents.runtime.kafka.group_positions.GroupPositions`."""

    async def ends(self, topics: Collection[str]) -> dict[Any, int]:
        """By partition, the ends of these topics now."""

    async def passed(self, groups: Mapping[str, Collection[str]], ends: Mapping[Any, int]) -> bool:
        """Whether each group has committed past `ends` in each of its topics."""


class Commits(Protocol):
    """Stores steps; see `agents.runtime.group_commit.Committer`."""

    async def commit(self, step: Step) -> object:
        """Return when the step is durable."""


@dataclass(frozen=True)
class _Snapshot:
    """The ends of the topics that matter for a status, and the database's time when they were read."""

    at: datetime
    ends: Mapping[Any, int]
    #: What no event was due for then. What one was due for may have it in its hands now: a call to a model takes two
    #: minutes, and an event that waited ten for it is in a topic behind `ends`.
    standing: Standing


@dataclass(frozen=True)
class Revival:
    """What can stand still, and how it is moved on."""

    #: As operators call it: a status in backticks, or a kind of enrichment.
    subject: str
    #: The consumer groups that it waits for, each with the topics in which its events may be.
    groups: Mapping[str, Collection[str]]
    #: Move on what has not changed since then, of what stood still at the snapshot; how many.
    revive: Callable[[datetime, Standing], Awaitable[int]]
    #: What became of them, for a report.
    result: str
    #: What has no event that is due, at a snapshot; None where all that has not changed since is moved on.
    standing: Callable[[datetime], Awaitable[Standing]] | None = None


@dataclass
class Sweeper:
    """Sweeps while this process holds the lease; one process of the fleet at a time does."""

    database: Database
    upkeep: Upkeep
    commits: Commits
    store: Store
    positions: Positions
    recognizers: tuple[str, ...]
    deadline_s: float
    #: Identifies this process among all workers.
    holder: str = "sweeper"
    #: Kinds of enrichment that the fleet makes.
    enrichments: tuple[str, ...] = ()
    idle_s: float = IDLE_S
    settled_s: float = SETTLED_S
    _snapshots: dict[str, _Snapshot] = field(default_factory=dict)

    async def run(self) -> None:
        """Run a round every `LOOK_S` seconds until cancelled, except while PostgreSQL or Kafka is unavailable."""
        while True:
            try:
                if await self.database.lease("sweeper", self.holder, LEASE_S):
                    await self.look()
            except (Unavailable, KafkaError, OSError, TimeoutError) as exc:
                log.debug("stuck jobs were not looked for: %s", exc or type(exc).__name__)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Run one round: revive stuck jobs.

        Jobs of a status are revived in the first round in which their groups have passed the ends that an earlier
        round has read. Raises Unavailable, KafkaError and TimeoutError.
        """
        for revival in self.revivals():
            snapshot = self._snapshots.get(revival.subject)
            if snapshot is None:
                self._snapshots[revival.subject] = await self._snapshot(revival)
            elif (before := await self._passed(revival, snapshot)) is not None:
                del self._snapshots[revival.subject]
                await revival.revive(before, snapshot.standing)

    def revivals(self) -> list[Revival]:
        """Everything that can stand still: open jobs by status, and enrichments by kind."""
        jobs = [
            Revival(f"`{status}`", self.groups(status), partial(self.revive, status), "jobs were revived, or ended")
            for status in STAGE_OF
        ]
        enrichments = [
            Revival(
                kind,
                {f"concord.{kind}": [topics.PERSISTED.name, topics.EDITED.name, topics.due_name(kind)]},
                partial(self.revive_enrichments, kind),
                "enrichments were asked for again, or failed",
                partial(self._standing, kind),
            )
            for kind in self.enrichments
        ]
        return jobs + enrichments

    async def revive_if_read(self, revival: Revival) -> int | None:
        """Revive at once; how many, or None if the groups have not read their topics to their ends."""
        snapshot = await self._snapshot(revival)
        before = await self._passed(revival, snapshot)
        return None if before is None else await revival.revive(before, snapshot.standing)

    async def _snapshot(self, revival: Revival) -> _Snapshot:
        at = await self.database.now()
        awaited_topics = {topic for names in revival.groups.values() for topic in names}
        # Before the ends: whose event is relayed in between is in a topic before them, and is waited for.
        standing = frozenset[_Key]() if revival.standing is None else await revival.standing(at)
        return _Snapshot(at, await self.positions.ends(awaited_topics), standing)

    async def _standing(self, kind: str, at: datetime) -> Standing:
        stuck = await self.upkeep.stuck_enrichments(kind, at, MANY)
        return frozenset(_key(one.enrichment) for one in stuck)

    async def _passed(self, revival: Revival, snapshot: _Snapshot) -> datetime | None:
        """Before when a job must have changed last to be revived; None until the groups have passed the snapshot."""
        if not await self.positions.passed(revival.groups, snapshot.ends):
            return None
        return snapshot.at - timedelta(seconds=self.idle_s)

    async def revive(self, status: Status, before: datetime, _: Standing = frozenset()) -> int:
        """Revive, or end, jobs of this status that have not changed since `before`; how many. Raises Unavailable."""
        stuck = await self.upkeep.stuck_jobs(status, before, MANY)
        await self._commit(revived(one, self.deadline_s) for one in stuck)
        if stuck:
            await self.upkeep.note_revivals([one.job for one in stuck])
        return len(stuck)

    async def revive_enrichments(self, kind: str, before: datetime, standing: Standing) -> int:
        """Ask again for enrichments of a kind that have not changed since `before`, or fail them; how many."""
        found = await self.upkeep.stuck_enrichments(kind, before, MANY)
        stuck = [one for one in found if _key(one.enrichment) in standing]
        await self._commit(revived_enrichment(one) for one in stuck)
        if stuck:
            await self.upkeep.note_enrichment_revivals([one.enrichment for one in stuck])
        return len(stuck)

    async def _commit(self, steps: Iterable[Step]) -> None:
        for step in steps:
            log.warning("job %s of %s: %s", step.outcome.job_id, step.outcome.tenant_id, step.outcome.error)
            await self.commits.commit(step)

    def groups(self, status: Status) -> dict[str, Collection[str]]:
        """The consumer groups for which jobs of this status wait, each with the topics in which their events may be."""
        reconcile: dict[str, Collection[str]] = {"concord.reconcile": AWAITED["reconciling"]}
        match status:
            case "uploaded":
                return {f"concord.{topic.removesuffix('.due')}": [topic] for topic in AWAITED[status]}
            case "transcribing":
                transcribe = {f"concord.transcribe.{name}": [topics.requests(name).name] for name in self.recognizers}
                return {**transcribe, **reconcile}
            case "reconciling":
                return reconcile
            case _:
                return {**reconcile, "concord.persist": [topics.RECONCILED.name, topics.PERSIST_DUE.name]}

    async def run_blobs(self) -> None:
        """Delete orphan blobs every `BLOBS_S` seconds until cancelled, except while a server is unavailable."""
        while True:
            try:
                await self.sweep_blobs()
            except Unavailable as exc:
                log.debug("orphan blobs were not deleted: %s", exc)
            await asyncio.sleep(BLOBS_S)

    async def sweep_blobs(self) -> int:
        """Delete orphan blobs: written for a step that was never committed; how many. Raises Unavailable.

        Once a blob is forgotten its name may be written again. So before each deletion, this process makes sure that it
        has still the lease: another may have deleted the same orphans and forgotten them.
        """
        if not await self._leases_blobs():
            return 0
        await self.store.tidy()
        orphans = await self.upkeep.orphan_blobs(self.settled_s, OLD_S, MANY)
        for uri in orphans:
            if not await self._leases_blobs():
                return 0
            await _deleted(uri, self.store.delete(uri))
        if orphans:
            await self.upkeep.forget_blobs(orphans)
            log.info("deleted %d orphan blobs", len(orphans))
        await self._remove_parts()
        return len(orphans)

    async def _remove_parts(self) -> None:
        """Remove the parts of direct uploads that were not completed in time."""
        expired = await self.upkeep.expired_parts(PARTS_S, MANY)
        for upload in expired:
            await _deleted(upload.uri, self.store.remove_parts(upload.uri, upload.parts_id or ""))
        if expired:
            await self.upkeep.forget_parts([upload.upload_id for upload in expired])

    async def _leases_blobs(self) -> bool:
        return await self.database.lease("orphan blobs", self.holder, BLOB_LEASE_S)


async def _deleted(uri: str, deletion: Awaitable[None]) -> None:
    """Raises Unavailable."""
    try:
        await deletion
    except Unavailable:
        raise
    except ConcordError as exc:  # it is in a store that was configured earlier
        log.warning("%s cannot be deleted: %s", uri, exc)
