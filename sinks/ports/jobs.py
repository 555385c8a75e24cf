"""The port through which stages read jobs' rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.ids import Key
from schemas.jobs.rows import Job
from schemas.transcript_words import TranscriptWord


@dataclass(frozen=True, slots=True)
class WordSource:
    """Where the words of a version of a transcript are."""

    #: All readings of the run, from which come the words of its own version.
    raw_transcript_uri: str
    language: str | None
    #: The words of a version that a person has made; None if there is no such version.
    edited: list[TranscriptWord] | None


class Jobs(Protocol):
    """Jobs of all tenants; a job is named by its tenant and its id."""

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """The job's row, without its metadata; None if there is no such job."""

    async def metadata(self, tenant_id: str, job_id: str) -> dict[str, Any]:
        """What the job's producer sent along; empty if there is no such job. Kept apart from the row, which every step
        reads: metadata may be 850 kB.
        """

    async def transcript_uri(self, tenant_id: str, job_id: str, run: int) -> str | None:
        """The URI of the newest version's `agent_optimized.json`; None if the run has no transcript."""

    async def words_of_version(self, tenant_id: str, job_id: str, run: int, version: int) -> WordSource | None:
        """Where the words of a version of the run's transcript are; None if there is no transcript."""

    async def named(self, tenant_id: str, job_id: str, reference: str | None) -> list[Job]:
        """The tenant's jobs that have this id or this reference: none, one, or one of each."""

    async def open_jobs(self, tenant_id: str, statuses: Collection[str], after: str, limit: int) -> list[Key]:
        """At most `limit` of the tenant's jobs in these statuses that have not ended, in order of their ids, those
        behind the id `after`.
        """
