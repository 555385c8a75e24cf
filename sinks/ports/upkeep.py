"""What keeps the stores in order asks this of the database: jobs that stand still, and blobs that nothing refers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from schemas import topics
from schemas.ids import Key
from schemas.jobs.rows import Job, Status

#: By status, the topics on which an event that moves such a job on may wait; a recognizer's requests have their own.
AWAITED: Final[Mapping[Status, tuple[str, ...]]] = {
    "uploaded": (topics.INTAKE_DUE.name,),
    "reconciling": (topics.RESULTS.name, topics.RECONCILE_DUE.name),
    "persisting": (topics.RECONCILED.name, topics.PERSIST_DUE.name, topics.RESULTS.name, topics.RECONCILE_DUE.name),
}


@dataclass(frozen=True, slots=True)
class StuckJob:
    """An open job for which no event waits in the outbox."""

    job: Job
    #: Recognizers that have not answered and for which no event waits.
    providers: tuple[str, ...] = ()
    #: Whether its deadline is missing, too.
    without_deadline: bool = False
    #: How often it was put on its way again since it last changed.
    times: int = 0


class Upkeep(Protocol):
    """Raises `Unavailable` when the database cannot be reached."""

    async def stuck_jobs(self, status: Status, before: datetime, limit: int) -> list[StuckJob]:
        """Jobs in this status that have not changed since `before`, were not revived since, and for which no event
        waits in the outbox. One may be in Kafka.
        """

    async def note_revivals(self, jobs: Sequence[Job]) -> None:
        """Count that these jobs were put on their way again, as they are now."""

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Remember that a blob is about to be written for a job; the step that refers to it makes this forgotten."""

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """URIs of blobs that were intended and that no file of their job refers to: at once where a step with them was
        refused, after `settled_s` where the job has another original or has ended, after `age_s` in any case.
        """

    async def forget_blobs(self, uris: Sequence[str]) -> None:
        """These are gone, or referred to."""
