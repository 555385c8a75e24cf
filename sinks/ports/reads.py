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


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last job of a page: the next page begins behind it, however many jobs have come meanwhile."""

    created_at: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a tenant's jobs, newest first, and where the next page begins (None at the end)."""

    jobs: list[JobStatus]
    following: Cursor | None


#: Jobs of one name that are looked for at most, each of another tenant.
MANY = 20


class Reads(Protocol):
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
        self, tenant: str, *, status: Status | None = None, limit: int = 50, before: Cursor | None = None
    ) -> Page:
        """At most `limit` of a tenant's jobs, newest first, those behind `before` if it is given."""

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
