"""The port of what people ask over HTTP and on the command line: a tenant's own jobs, transcripts and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.events.job import JobStatus
from schemas.ids import Whose
from schemas.jobs.deletion import Deletion
from schemas.jobs.rows import File, Job, Status, Transcript
from schemas.jobs.status import StatusVersion
from sinks.ports.corrections.voices import VoiceSuggestions


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last job of a page: the next page begins behind it, however many jobs have come meanwhile."""

    created_at: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a tenant's jobs in the order that was asked for, and where the next page begins (None at the end). A page
    may have fewer jobs than asked for, or none, and still not be the last.
    """

    jobs: list[JobStatus]
    following: Cursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which of a tenant's jobs are listed, and in which order. What is not set excludes none; all that is set holds."""

    #: Any of these.
    statuses: frozenset[Status] = frozenset()
    #: From the first moment to before the second.
    created_from: datetime | None = None
    created_to: datetime | None = None
    completed_from: datetime | None = None
    completed_to: datetime | None = None
    #: A part of the filename, in upper or lower case.
    filename: str | None = None
    reference: str | None = None
    reference_prefix: str | None = None
    #: Pairs of the upload's metadata, on its top level: numbers as they are written in JSON, `true` and `false`.
    metadata: frozenset[tuple[str, str]] = frozenset()
    #: Of the newest run's transcript, or as requested where it has none: `en` means `en-US`, too. In lower case.
    language: str | None = None
    oldest_first: bool = False


#: Every job, newest first.
EVERY_JOB = JobFilter()

#: Jobs of one name that are looked for at most, each of another tenant.
MANY = 20


class Reads(VoiceSuggestions, Protocol):
    """Questions of one tenant, which sees only its own rows; where `EVERY_TENANT` may ask, that is an operator, who
    sees all rows.

    What belongs to another tenant is answered exactly like what does not exist.

    Raises:
        Unavailable: the database cannot be reached.
        InvalidInput: the text cannot be a tenant's name.
    """

    async def job(self, tenant: str, job_id: str) -> Job | None:
        """The tenant's job with this id, without its metadata."""

    async def status_version(self, tenant: str, job_id: str) -> StatusVersion | None:
        """How new the job's row is, read after this was called. Reads any tenant's row, for the service itself: the
        answer tells nothing of the job.
        """

    async def find(self, whose: Whose, name: str, limit: int = MANY) -> list[Job]:
        """The jobs that a name can mean, which is an id (a UUID in any spelling) or a reference: of each tenant at most
        one, an id before a reference. In order of tenant, at most `limit`.
        """

    async def jobs(
        self, tenant: str, wanted: JobFilter = EVERY_JOB, *, limit: int = 50, before: Cursor | None = None
    ) -> Page:
        """At most `limit` of the tenant's jobs that are wanted; those behind `before` in their order, if it is given.
        A limited number of jobs is looked at, however many there are: then the page is short.
        """

    async def transcript(self, tenant: str, job_id: str, run: int | None = None) -> Transcript | None:
        """The transcript of a run; by default of the newest run that has one."""

    async def files(self, tenant: str, job_id: str) -> list[File]:
        """Every blob of the job, by run and kind."""

    async def tenants(self, limit: int = 1000) -> list[str]:
        """For operators: the tenants that have jobs, in order, at most `limit` of them."""

    async def counts(self) -> dict[str, int]:
        """For operators: how many jobs have not ended, by status; zeros included."""

    async def deletion(self, whose: Whose, id: str) -> Deletion | None:
        """The deletion with this id."""

    async def deletion_of(self, whose: Whose, job_ids: Sequence[str]) -> Deletion | None:
        """The newest deletion of a job with one of these ids."""
