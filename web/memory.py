"""The double of a `track` worker's table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.events import JobStatus
    from schemas.ids import Key


@dataclass
class MemoryJobs:
    """`web.ports.LiveJobs` over dictionaries: rows here, and base URLs of workers by the jobs whose rows are there."""

    rows: dict[Key, JobStatus] = field(default_factory=dict)
    owners: dict[Key, str] = field(default_factory=dict)
    epoch: int = 0

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """This worker's row."""
        return self.rows.get((tenant_id, job_id))

    def owner(self, tenant_id: str, job_id: str) -> str | None:
        """The worker that has the row, if it is another."""
        return self.owners.get((tenant_id, job_id))
