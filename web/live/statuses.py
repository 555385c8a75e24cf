"""The current status of a job: from this worker's table if PostgreSQL confirms that its row is the newest, else from
PostgreSQL.

PostgreSQL is queried for every answer. A table follows Kafka, and lags behind it while the relay, the broker or another
worker is away; meanwhile another worker has shown what PostgreSQL has, and only PostgreSQL has it. (With one query each
time that partitions had moved, tables took back 10 and 33 statuses in two runs of 60 recordings and 12 kills.) Whatever
is shown anywhere was committed there first: an answer that is as new as its row, read after the request came, is never
older than one that was given before. The query is short, and those of one moment are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas.errors import NotFound
from schemas.jobs.status import status_of, status_version
from web.live.job_lookup import find_job, job_key
from web.problems import NO_JOB

if TYPE_CHECKING:
    from schemas.events.job import JobStatus
    from schemas.ids import Key, Whose
    from schemas.jobs.status import StatusVersion
    from sinks.ports.reads import Reads
    from web.ports import LiveJobs

Source = Literal["table", "database"]


@dataclass(frozen=True)
class CurrentStatus:
    """A status, and where it was read."""

    status: JobStatus
    source: Source


class Statuses:
    """Reads jobs' statuses."""

    def __init__(self, live: LiveJobs, reads: Reads) -> None:
        self._live, self._reads = live, reads

    async def newest(self, whose: Whose, name: str) -> CurrentStatus:
        """The status of the job with this id or reference.

        The table knows jobs by tenant and id; for references, and for every tenant, PostgreSQL is queried.

        Raises:
            NotFound: there is no such job. Also for another tenant's job, after the same query as for an unknown one,
                so that not even the duration tells them apart.
            Ambiguous: several tenants have such a job.
        """
        key = job_key(whose, name)
        row = self._live.get(*key) if key else None
        if row is not None and status_version(row) == await self._reads.status_version(row.tenant_id, row.job_id):
            return CurrentStatus(row, "table")
        return CurrentStatus(status_of(await find_job(self._reads, whose, name)), "database")

    async def newer(self, key: Key, version: StatusVersion) -> CurrentStatus | None:
        """The status of a job if its version is not this one any more, else None.

        Raises:
            NotFound: the job is deleted.
        """
        newest = await self._reads.status_version(*key)
        if newest == version:
            return None
        row = self._live.get(*key)
        if row is not None and status_version(row) == newest:
            return CurrentStatus(row, "table")
        job = await self._reads.job(*key)
        if job is None:
            raise NotFound(NO_JOB)
        return CurrentStatus(status_of(job), "database")
