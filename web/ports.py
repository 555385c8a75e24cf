"""What the web view asks of the fleet around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from schemas.events.job import JobStatus


class LiveJobs(Protocol):
    """Statuses of jobs, as the table of a `track` worker has it."""

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """This worker's row, which may be behind; None when the job is unknown here."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe is told: `alive` False means restart me, `ready` False means send me no traffic; details by part."""

    alive: bool
    ready: bool
    details: dict[str, str]
