"""The double of completed jobs that were never indexed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.jobs.rows import Job
from sinks.memory.state import MemoryState
from sinks.ports.upkeep.earlier_transcripts import EarlierTranscripts


@dataclass
class MemoryEarlierTranscripts(MemoryState, EarlierTranscripts):
    """`EarlierTranscripts` in this process."""

    async def never_indexed(self, limit: int, most_open: int) -> Sequence[Job]:
        """Such jobs, of all tenants in turn."""
        waiting = [
            job
            for job in self.all_jobs()
            if job.status == "completed" and "index" not in job.enrichment and job.options.get("enrich") is not False
        ]
        waiting.sort(key=lambda job: (-(job.created_at.timestamp() if job.created_at else 0), job.job_id))
        places: Counter[str] = Counter()
        placed = []
        for job in waiting:
            placed.append((places[job.tenant_id], job.tenant_id, job))
            places[job.tenant_id] += 1
        placed.sort(key=lambda one: one[:2])
        open_ones = sum(row.kind == "index" and not row.ended for row in self.enrichments.values())
        return [job for *_, job in placed[: max(0, min(limit, most_open - open_ones))]]
