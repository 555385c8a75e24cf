"""What the web view asks of the fleet around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from schemas.events import JobStatus


class LiveJobs(Protocol):
    """The newest status of jobs, as the table of a `track` worker has it."""

    @property
    def epoch(self) -> int:
        """Changes whenever rows may have come here that are older than what was shown of them elsewhere."""

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """This worker's row, or None when the job is unknown here."""

    def owner(self, tenant_id: str, job_id: str) -> str | None:
        """Base URL of the other worker that has the job's row; None when it would be this one, or while partitions
        move.
        """


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe is told: `alive` False means restart me, `ready` False means send me no traffic; details by part."""

    alive: bool
    ready: bool
    details: dict[str, str]
