"""The port of jobs and enrichments that do not move: open, and without an event that would move them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from schemas import topics
from schemas.jobs.rows import Enrichment, Job, Status

#: By status, the topics on which an event that moves such a job on may wait; a recognizer's requests have their own.
AWAITED: Final[Mapping[Status, tuple[str, ...]]] = {
    "uploaded": (topics.INTAKE_DUE.name, topics.FETCH_DUE.name),
    "reconciling": (topics.RESULTS.name, topics.RECONCILE_DUE.name),
    "persisting": (topics.RECONCILED.name, topics.PERSIST_DUE.name, topics.RESULTS.name, topics.RECONCILE_DUE.name),
}


@dataclass(frozen=True, slots=True)
class StuckJob:
    """An open job for which no event waits in the outbox, and no leased task runs."""

    job: Job
    #: Recognizers that have not answered, for which no event waits and no leased task runs.
    providers: tuple[str, ...] = ()
    #: Whether its deadline is missing, too.
    without_deadline: bool = False
    #: How often its event was made again since it last changed.
    times: int = 0


@dataclass(frozen=True, slots=True)
class StuckEnrichment:
    """An enrichment that has not ended, for which no event waits in the outbox, and no leased task runs."""

    enrichment: Enrichment
    #: How often its event was made again since it last changed.
    times: int = 0


class StuckJobs(Protocol):
    """What the sweeper asks about jobs and enrichments."""

    async def stuck_jobs(self, status: Status, before: datetime, limit: int) -> list[StuckJob]:
        """Jobs in this status that have not changed since `before`, were not revived since, and for which no event
        waits in the outbox and no leased task runs, the longest unchanged first. An event may be in Kafka.
        """

    async def note_revivals(self, jobs: Sequence[Job]) -> None:
        """Count that the events of these jobs, at their present versions, were made again."""

    async def stuck_enrichments(self, kind: str, before: datetime, limit: int) -> list[StuckEnrichment]:
        """Enrichments of this kind that have not changed since `before`, were not revived since, and for which no event
        waits in the outbox and no leased task runs, the longest unchanged first. An event may be in Kafka.
        """

    async def note_enrichment_revivals(self, rows: Sequence[Enrichment]) -> None:
        """Count that the events of these enrichments were made again."""
