"""The double of jobs' rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from schemas.corrections.rows import load_words
from schemas.ids import Key
from schemas.jobs.rows import Job
from sinks.memory.corrections.writes import MemoryCorrections
from sinks.ports.jobs import Jobs, WordSource

METADATA = TypeAdapter(dict[str, Any])


@dataclass
class MemoryJobs(MemoryCorrections, Jobs):
    """`Jobs` in this process."""

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """The job's row, without its metadata."""
        return self._load(tenant_id, job_id)

    async def metadata(self, tenant_id: str, job_id: str) -> dict[str, Any]:
        """What the job's producer sent along."""
        return METADATA.validate_json(self._metadata.get((tenant_id, job_id), b"{}"))

    async def transcript_uri(self, tenant_id: str, job_id: str, run: int) -> str | None:
        """Where the newest version of the run's transcript is."""
        transcript = self.transcripts.get((tenant_id, job_id, run))
        return transcript.agent_optimized_uri if transcript else None

    async def words_of_version(self, tenant_id: str, job_id: str, run: int, version: int) -> WordSource | None:
        """Where the words of a version of the run's transcript are."""
        transcript = self.transcripts.get((tenant_id, job_id, run))
        edited = self.versions.get((tenant_id, job_id, run, version))
        if transcript is None:
            return None
        words = load_words(edited.words) if edited else None
        return WordSource(transcript.raw_transcript_uri, transcript.language, words)

    async def named(self, tenant_id: str, job_id: str, reference: str | None) -> list[Job]:
        """The tenant's jobs that have this id or this reference."""
        other = self._references.get((tenant_id, reference)) if reference is not None else None
        keys = dict.fromkeys(key for key in ((tenant_id, job_id), other) if key is not None)
        return [job for key in keys if (job := self._load(*key)) is not None]

    async def open_jobs(self, tenant_id: str, statuses: Collection[str], after: str, limit: int) -> list[Key]:
        """A page of the tenant's jobs that have not ended, by id."""
        open_jobs = [job for job in self.all_jobs() if job.tenant_id == tenant_id and not job.ended]
        return sorted(job.key for job in open_jobs if job.status in statuses and job.job_id > after)[:limit]
