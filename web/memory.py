"""A `track` worker's table in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.events.job import JobStatus
    from schemas.ids import Key


@dataclass
class MemoryJobs:
    """`web.ports.LiveJobs` over a dictionary."""

    rows: dict[Key, JobStatus] = field(default_factory=dict)

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """This worker's row."""
        return self.rows.get((tenant_id, job_id))
