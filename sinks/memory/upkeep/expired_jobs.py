"""The double of jobs whose retention is over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.conversations.names import conversation_of
from schemas.jobs.rows import Job
from sinks.memory.state import MemoryState
from sinks.ports.upkeep.retention import Expired, ExpiresJobs, Kind


@dataclass
class MemoryExpiredJobs(MemoryState, ExpiresJobs):
    """`ExpiresJobs` in this process."""

    async def tenants(self) -> list[str]:
        """Every tenant that has jobs."""
        return sorted({job.tenant_id for job in self.all_jobs()})

    async def expired_jobs(self, tenant_id: str, kind: Kind, days: float, limit: int) -> list[str]:
        """Ids of the tenant's oldest jobs of this kind that ended more than so many days ago."""
        return [job.job_id for job in self._expired(tenant_id, kind, days)][:limit]

    async def count_expired(self, tenant_id: str, kind: Kind, days: float) -> Expired:
        """How many they are, and how large."""
        keys = {job.key for job in self._expired(tenant_id, kind, days)}
        return Expired(len(keys), sum(file.size_bytes for of, file in self.files.items() if of[:2] in keys))

    def _expired(self, tenant_id: str, kind: Kind, days: float) -> list[Job]:
        before = self.clock() - timedelta(days=days)
        ended: list[tuple[datetime, Job]] = [
            (job.completed_at, job)
            for job in self.all_jobs()
            if job.tenant_id == tenant_id and job.completed_at is not None and job.completed_at < before
        ]
        of_kind = [(at, job) for at, job in ended if self._is_of(kind, job)]
        return [job for _, job in sorted(of_kind, key=lambda pair: pair[0])]

    def _is_of(self, kind: Kind, job: Job) -> bool:
        match kind:
            case "files":
                return job.original_uri is not None
            case "conversation_files":
                return any(of[:2] == job.key and of[3] == "conversation" for of in self.files)
            case "failed_conversations":
                return job.status == "failed" and conversation_of(job) is not None
            case _:
                return job.status == kind
