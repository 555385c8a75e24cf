"""Finds jobs that stand still and blobs that nothing refers to, and sees to it that every job ends.

A job stands still if no event for it waits in the outbox and its stage has read all that was in Kafka when this was
first seen: then no event is on its way, and none will come by itself.
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
from agents.upkeep.stuck_jobs import STAGES, revived
from schemas import topics
from schemas.errors import ConcordError, Unavailable
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Status
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.leases import Leases
from sinks.ports.upkeep.blob_intents import BlobIntents
from sinks.ports.upkeep.stuck_jobs import AWAITED, StuckJobs

log = logging.getLogger(__name__)

#: Seconds between looks; for which a job has not changed before it counts as standing still; jobs and blobs a look.
LOOK_S: Final = 30.0
IDLE_S: Final = 60.0
MANY: Final = 500

#: Seconds after which an intended blob is an orphan: of a job that has another original or has ended; of any.
SETTLED_S: Final = 120.0
OLD_S: Final = 6 * 3600.0

#: Seconds for which one process has the task.
LEASE_S: Final = 3 * LOOK_S


class Database(Clock, Leases, Protocol):
    """What the sweeper asks of the database."""


class Upkeep(StuckJobs, BlobIntents, Protocol):
    """What the sweeper asks about jobs and blobs."""


class Positions(Protocol):
    """What the sweeper asks of Kafka, see `agents.runtime.kafka.group_positions.GroupPositions`."""

    async def ends(self, topics: Collection[str]) -> dict[Any, int]: ...

    async def passed(self, groups: Mapping[str, Collection[str]], ends: Mapping[Any, int]) -> bool: ...


class Commits(Protocol):
    """`agents.runtime.group_commit.Committer`."""

    async def commit(self, step: Step) -> object: ...


@dataclass(frozen=True)
class _Snapshot:
    """Where the topics of a status ended, and when."""

    at: datetime
    ends: Mapping[Any, int]


@dataclass
class Sweeper:
    """One at a time in the fleet does the work; `run` never returns by itself."""

    database: Database
    upkeep: Upkeep
    commits: Commits
    store: Store
    positions: Positions
    recognizers: tuple[str, ...]
    deadline_s: float
    #: Names this process among all workers.
    holder: str = "sweeper"
    #: Kinds of enrichment that the fleet makes.
    enrichments: tuple[str, ...] = ()
    idle_s: float = IDLE_S
    settled_s: float = SETTLED_S
    _snapshots: dict[str, _Snapshot] = field(default_factory=dict)

    async def run(self) -> None:
        """Look again and again. A look that finds a server away is only missed."""
        while True:
            try:
                if await self.database.lease("sweeper", self.holder, LEASE_S):
                    await self.look()
            except (Unavailable, KafkaError, OSError, TimeoutError) as exc:
                log.debug("a look was missed: %s", exc or type(exc).__name__)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Put jobs that stand still on their way again, and delete orphan blobs."""
        for status in STAGES:
            if before := await self._passed(status, self.groups(status)):
                await self.revive(status, before)
        for kind in self.enrichments:
            group = {f"concord.{kind}": [topics.PERSISTED.name, f"{kind}.due"]}
            if before := await self._passed(f"enrichment {kind}", group):
                await self.revive_enrichments(kind, before)
        await self.sweep_blobs()

    async def _passed(self, what: str, groups: Mapping[str, Collection[str]]) -> datetime | None:
        """Before when what these groups wait for must have changed: they have read what was in their topics then. None
        until they have.
        """
        snapshot = self._snapshots.get(what)
        if snapshot is None:
            at = await self.database.now()
            everything = {topic for group in groups.values() for topic in group}
            self._snapshots[what] = _Snapshot(at, await self.positions.ends(everything))
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
        """Revive, or end, jobs of this status that have stood still since `before`; how many."""
        stuck = await self.upkeep.stuck_jobs(status, before, MANY)
        for one in stuck:
            step = revived(one, self.deadline_s)
            log.warning("job %s of %s: %s", one.job.job_id, one.job.tenant_id, step.outcome.error)
            await self.commits.commit(step)
        if stuck:
            await self.upkeep.note_revivals([one.job for one in stuck])
        return len(stuck)

    def groups(self, status: Status) -> dict[str, Collection[str]]:
        """The consumer groups that jobs of this status wait for, with the topics in which their events may be."""
        reconcile: dict[str, Collection[str]] = {"concord.reconcile": AWAITED["reconciling"]}
        match status:
            case "uploaded":
                return {"concord.intake": AWAITED[status]}
            case "transcribing":
                asked = {f"concord.transcribe.{name}": [topics.requests(name).name] for name in self.recognizers}
                return {**asked, **reconcile}
            case "reconciling":
                return reconcile
            case _:
                return {**reconcile, "concord.persist": [topics.RECONCILED.name, topics.PERSIST_DUE.name]}

    async def sweep_blobs(self) -> int:
        """Delete blobs that were written for a step that never came to be; how many."""
        orphans = await self.upkeep.orphan_blobs(self.settled_s, OLD_S, MANY)
        for uri in orphans:
            try:
                await self.store.delete(uri)
            except Unavailable:
                raise
            except ConcordError as exc:  # of another store, that was configured once
                log.warning("%s cannot be deleted: %s", uri, exc)
        if orphans:
            await self.upkeep.forget_blobs(orphans)
            log.info("deleted %d blobs that nothing refers to", len(orphans))
        return len(orphans)
