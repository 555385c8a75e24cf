"""Revives stuck jobs, so that every job ends, and deletes orphan blobs.

A job is stuck if no event for it waits in the outbox, and its stage has read everything that was in Kafka when that was
first observed: then no event for it exists, and none will be created without help.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from aiokafka.errors import KafkaError

from agents.upkeep.stuck_enrichments import revived_enrichment
from agents.upkeep.stuck_jobs import revived
from schemas import topics
from schemas.errors import ConcordError, Unavailable
from schemas.jobs.outcome import Step
from schemas.jobs.rows import STAGE_OF, Status
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

#: Seconds of the lease under which one process of the fleet sweeps.
LEASE_S: Final = 3 * LOOK_S


class Database(Clock, Leases, Protocol):
    """What the sweeper asks of the database."""


class Upkeep(StuckJobs, BlobIntents, Protocol):
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
        """Run one round: revive stuck jobs, and delete orphan blobs.

        Jobs of a status are revived in the first round in which their groups have passed the ends that an earlier
        round has read. Raises Unavailable, KafkaError and TimeoutError.
        """
        for status in STAGE_OF:
            if before := await self._passed(status, self.groups(status)):
                await self.revive(status, before)
        for kind in self.enrichments:
            if before := await self._passed(f"enrichment {kind}", self.enrichment_groups(kind)):
                await self.revive_enrichments(kind, before)
        await self.sweep_blobs()

    async def _passed(self, what: str, groups: Mapping[str, Collection[str]]) -> datetime | None:
        """Before when what these groups wait for must have changed: they have read what was in their topics then. None
        until they have.
        """
        snapshot = self._snapshots.get(what)
        if snapshot is None:
            at = await self.database.now()
            awaited_topics = {topic for names in groups.values() for topic in names}
            self._snapshots[what] = _Snapshot(at, await self.positions.ends(awaited_topics))
            return None
        if not await self.positions.passed(groups, snapshot.ends):
            return None
        del self._snapshots[what]
        return snapshot.at - timedelta(seconds=self.idle_s)

    async def revive_enrichments(self, kind: str, before: datetime) -> int:
        """Ask again for enrichments of a kind that have stood still since `before`, or fail them; how many."""
        stuck = await self.upkeep.stuck_enrichments(kind, before, MANY)
        for one in stuck:
            step, row = revived_enrichment(one), one.enrichment
            log.warning("job %s of %s: %s", row.job_id, row.tenant_id, step.outcome.error)
            await self.commits.commit(step)
        if stuck:
            await self.upkeep.note_enrichment_revivals([one.enrichment for one in stuck])
        return len(stuck)

    async def revive(self, status: Status, before: datetime) -> int:
        """Revive, or end, jobs of this status that have not changed since `before`; how many. Raises Unavailable."""
        stuck_jobs = await self.upkeep.stuck_jobs(status, before, MANY)
        for stuck in stuck_jobs:
            step = revived(stuck, self.deadline_s)
            log.warning("job %s of %s: %s", stuck.job.job_id, stuck.job.tenant_id, step.outcome.error)
            await self.commits.commit(step)
        if stuck_jobs:
            await self.upkeep.note_revivals([stuck.job for stuck in stuck_jobs])
        return len(stuck_jobs)

    def groups(self, status: Status) -> dict[str, Collection[str]]:
        """The consumer groups for which jobs of this status wait, each with the topics in which their events may be."""
        reconcile: dict[str, Collection[str]] = {"concord.reconcile": AWAITED["reconciling"]}
        match status:
            case "uploaded":
                return {"concord.intake": AWAITED[status]}
            case "transcribing":
                transcribe = {f"concord.transcribe.{name}": [topics.requests(name).name] for name in self.recognizers}
                return {**transcribe, **reconcile}
            case "reconciling":
                return reconcile
            case _:
                return {**reconcile, "concord.persist": [topics.RECONCILED.name, topics.PERSIST_DUE.name]}

    @staticmethod
    def enrichment_groups(kind: str) -> dict[str, Collection[str]]:
        """The consumer group that enrichments of a kind wait for, with the topics in which their events may be."""
        return {f"concord.{kind}": [topics.PERSISTED.name, f"{kind}.due"]}

    async def sweep_blobs(self) -> int:
        """Delete orphan blobs: written for a step that was never committed; how many. Raises Unavailable."""
        orphans = await self.upkeep.orphan_blobs(self.settled_s, OLD_S, MANY)
        for uri in orphans:
            try:
                await self.store.delete(uri)
            except Unavailable:
                raise
            except ConcordError as exc:  # it is in a store that was configured earlier
                log.warning("%s cannot be deleted: %s", uri, exc)
        if orphans:
            await self.upkeep.forget_blobs(orphans)
            log.info("deleted %d orphan blobs", len(orphans))
        return len(orphans)
