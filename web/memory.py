"""The double of a `track` worker's table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.events import JobStatus


@dataclass
class MemoryJobs:
    """`web.ports.LiveJobs` over dictionaries: rows here, and base URLs of workers by the jobs whose rows are there."""

    rows: dict[str, JobStatus] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    epoch: int = 0

    def get(self, job_id: str) -> JobStatus | None:
        """This worker's row."""
        return self.rows.get(job_id)

    def owner(self, job_id: str) -> str | None:
        """The worker that has the row, if it is another."""
        return self.owners.get(job_id)
