"""The double of uploads that wait to be fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from schemas import topics
from schemas.ids import Key
from schemas.jobs.rows import Job
from sinks.memory.accounts.settings import MemorySettings
from sinks.memory.state import JOB
from sinks.ports.uploads import Uploads, fair_share


@dataclass
class MemoryUploads(MemorySettings, Uploads):
    """`Uploads` in this process."""

    async def waiting_uploads(self) -> dict[str, int]:
        """Tenants that have uploads waiting, with the urgency of the most urgent one."""
        waiting: dict[str, int] = {}
        for job in self._queued_uploads():
            waiting[job.tenant_id] = min(waiting.get(job.tenant_id, 9), 9 - job.priority)
        return waiting

    async def admit_uploads(self, held: Mapping[str, int], free: int) -> list[Key]:
        """Admit uploads to free slots, and make their events due."""
        turns: Counter[tuple[int, str]] = Counter()
        ranked, room = [], self._room()
        for job in sorted(self._queued_uploads(), key=lambda job: (job.queued_at or self.clock(), job.job_id)):
            lane = 9 - job.priority, job.tenant_id
            turns[lane] += 1
            if turns[lane] <= room.get(job.tenant_id, free):
                ranked.append((lane[0], held.get(job.tenant_id, 0) + turns[lane], job.queued_at, job.key))
        heads = [key for *_, key in sorted(ranked) if held.get(key[0], 0) < free][:free]
        chosen = fair_share(heads, held, free, room)
        for key in chosen:
            self._jobs[key] = JOB.dump_json(replace(JOB.validate_json(self._jobs[key]), queued_at=None))
        self._make_due(topics.INTAKE_DUE.name, chosen)
        return sorted(chosen)

    def _queued_uploads(self) -> list[Job]:
        now = self.clock()
        return [job for job in self.all_jobs() if job.is_queued and job.queued_at and job.queued_at <= now]

    def _room(self) -> dict[str, int]:
        """By tenant with a limit, how many jobs more it may have open."""
        opened = Counter(job.tenant_id for job in self.all_jobs() if not job.ended and not job.is_queued)
        limits = {tenant: stored.settings.max_open_jobs for tenant, stored in self._settings.items()}
        return {tenant: max(most - opened[tenant], 0) for tenant, most in limits.items() if most is not None}
