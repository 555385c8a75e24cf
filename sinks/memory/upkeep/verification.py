"""The double of what `concord verify` asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from schemas.ids import Key
from schemas.jobs.rows import ProviderRequest
from sinks.memory.state import MemoryState
from sinks.ports.upkeep.verification import Verification

_REQUEST = ("tenant_id", "job_id", "run", "provider", "state", "marker", "provider_id", "submitted_at")
_JOB = ("tenant_id", "job_id", "run", "completed_at")
_FILE = ("tenant_id", "job_id", "run", "kind", "uri")


@dataclass
class MemoryVerification(MemoryState, Verification):
    """`Verification` in this process."""

    async def unended_requests(self, limit: int) -> list[Any]:
        """Requests of ended runs whose own end is not known."""
        rows = sorted(filter(self._may_be_charged, self._all_requests()), key=attrgetter(*_REQUEST[:4]))
        return [_columns(row, _REQUEST) for row in rows[:limit]]

    def _may_be_charged(self, row: ProviderRequest) -> bool:
        job = self._load(row.tenant_id, row.job_id)
        if job is None:
            return False
        if row.state in ("intended", "parked", "submitted"):
            return row.run < job.run or job.ended
        return row.abandoned_at is not None and row.provider_id is None and row.run == job.run

    async def without_transcript(self, limit: int) -> list[Any]:
        """Completed jobs that have no transcript."""
        completed = sorted((job for job in self.all_jobs() if job.status == "completed"), key=attrgetter("key"))
        bare = [job for job in completed if (*job.key, job.run) not in self.transcripts]
        return [_columns(job, _JOB) for job in bare[:limit]]

    async def files_after(self, tenant_id: str, job_id: str, run: int, kind: str, limit: int) -> list[Any]:
        """A page of stored files by their key."""
        behind = sorted(key for key in self.files if key > (tenant_id, job_id, run, kind))
        return [_columns(self.files[key], _FILE) for key in behind[:limit]]

    async def known_blobs(self, keys: Sequence[Key]) -> list[Any]:
        """What these jobs refer to."""
        return [self._known(key) for key in sorted(keys)]

    def _known(self, key: Key) -> dict[str, Any]:
        job = self._load(*key)
        named = [uri for uri in (job.audio_uri, job.original_uri) if uri is not None] if job else []
        return {
            "tenant_id": key[0],
            "job_id": key[1],
            "status": job and job.status,
            "run": job and job.run,
            "files": [file.uri for of, file in self.files.items() if of[:2] == key],
            "named": named,
        }


def _columns(row: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
