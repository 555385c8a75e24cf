"""The status of a job: this worker's table has it at once, PostgreSQL says whether that is the newest.

PostgreSQL is asked about every answer. A table follows Kafka, and lags behind it while the relay, the broker or another
worker is away; meanwhile somebody else has shown what PostgreSQL has, and only PostgreSQL knows. (Asked once for each
time that partitions had moved, tables took back 10 and 33 statuses in two runs of 60 recordings and 12 kills.) Whatever
is shown anywhere was committed there first: an answer that is as new as its row, read after the question came, is never
older than one that was given before. The look is short, and those of one moment are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas.errors import Ambiguous, NotFound
from schemas.ids import canonical_uuid
from schemas.jobs.status import status_of, status_version
from web.views import NO_JOB

if TYPE_CHECKING:
    from schemas.events.job import JobStatus
    from schemas.ids import Key
    from schemas.jobs.rows import Job
    from schemas.jobs.status import StatusVersion
    from sinks.ports.reads import Reads
    from web.ports import LiveJobs

Source = Literal["table", "database"]


@dataclass(frozen=True)
class Answer:
    """A status, and where it is from."""

    status: JobStatus
    source: Source


class Statuses:
    """Answers for jobs' statuses."""

    def __init__(self, live: LiveJobs, reads: Reads) -> None:
        self._live, self._reads = live, reads

    async def newest(self, tenant: str | None, name: str) -> Answer:
        """The status of the job that `tenant` (None: an operator who did not say whose) means by this name.

        The table knows jobs by tenant and id; about references, and for whoever does not say whose job it is,
        PostgreSQL is asked. Raises `NotFound` also for what is another tenant's, after the same look into PostgreSQL as
        for an unknown job, so that not even the time it takes tells them apart; `Ambiguous` when several tenants have
        such a job.
        """
        key = exact(tenant, name)
        row = self._live.get(*key) if key else None
        if row is not None and status_version(row) == await self._reads.status_version(row.tenant_id, row.job_id):
            return Answer(row, "table")
        return Answer(status_of(await job_named(self._reads, tenant, name)), "database")

    async def newer(self, key: Key, known: StatusVersion) -> Answer | None:
        """The status of a job if it does not stand so any more, else None. Raises `NotFound` when it is deleted."""
        now = await self._reads.status_version(*key)
        if now == known:
            return None
        row = self._live.get(*key)
        if row is not None and status_version(row) == now:
            return Answer(row, "table")
        job = await self._reads.job(*key)
        if job is None:
            raise NotFound(NO_JOB)
        return Answer(status_of(job), "database")


def exact(tenant: str | None, name: str) -> Key | None:
    """Tenant and id of the job that is meant if the name is its id; None where it is not said whose it is."""
    return (tenant, canonical_uuid(name) or name) if tenant is not None else None


async def job_named(reads: Reads, tenant: str | None, name: str) -> Job:
    """The row of the job that is meant by a name. Raises `NotFound`, or `Ambiguous` if several tenants have one."""
    jobs = await reads.find(tenant, name)
    if not jobs:
        raise NotFound(NO_JOB)
    if len(jobs) > 1:
        raise Ambiguous(name, [job.tenant_id for job in jobs], "?tenant=")
    return jobs[0]
