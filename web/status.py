"""The status of a job, from whoever knows best: this worker's table, that of the worker with the row, PostgreSQL.

A table is quick, and may lag or be moving; PostgreSQL is the truth. Of two answers the newer wins, and this worker
never answers with an older one than it did before. Nor with an older one than another worker did before it: after
partitions have moved, PostgreSQL is asked once about every job, and nothing is shown anywhere that was not there first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas.errors import Ambiguous, NotFound, Unavailable
from schemas.ids import canonical_uuid
from schemas.jobs import status_of
from web.views import NO_JOB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from schemas.events import JobStatus
    from schemas.ids import Key
    from schemas.jobs import Job
    from sinks import Reads
    from web.owners import Owners
    from web.ports import LiveJobs
    from web.pulse import Pulse

Source = Literal["table", "owner", "database"]

#: Jobs whose newest answered version is remembered: some 20 MB.
REMEMBERED = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and who said so."""

    status: JobStatus
    source: Source


def standing(status: JobStatus) -> tuple[datetime, int]:
    """What makes one status newer than another. Versions start anew when a job is deleted and its id used again."""
    return status.created_at, status.version


class Seen:
    """The newest version shown of each job, for the jobs asked for last."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._newest: OrderedDict[Key, tuple[datetime, int]] = OrderedDict()

    def allows(self, status: JobStatus) -> bool:
        """Whether showing this would not be a step back."""
        known = self._newest.get((status.tenant_id, status.job_id))
        return known is None or standing(status) >= known

    def note(self, status: JobStatus) -> None:
        """This is being shown."""
        if self.allows(status):
            key = status.tenant_id, status.job_id
            self._newest[key] = standing(status)
            self._newest.move_to_end(key)
            if len(self._newest) > self._size:
                self._newest.popitem(last=False)


class Statuses:
    """Answers for jobs' statuses; everything that shows one elsewhere (lists, events) notes it in `seen`."""

    def __init__(self, live: LiveJobs, reads: Reads, owners: Owners, pulse: Pulse) -> None:
        self._live, self._reads, self._owners, self._pulse = live, reads, owners, pulse
        self.seen = Seen()
        #: The epoch of the table in which PostgreSQL was asked about a job last.
        self._asked: OrderedDict[Key, int] = OrderedDict()

    async def newest(self, tenant: str | None, name: str, passport: Mapping[str, str] | None) -> Answer:
        """The status of the job that `tenant` (None: an operator who did not say whose) means by this name. `passport`
        is what the request may be passed on with; None if it may not.

        Tables know jobs by tenant and id: about references, and for whoever does not say whose job it is, PostgreSQL is
        asked. Raises `NotFound` also for what is another tenant's, after the same look into PostgreSQL as for an
        unknown job, so that not even the time it takes tells them apart; `Ambiguous` when several tenants have such a
        job; `Unavailable` when only a step back could be answered.
        """
        key, job = exact(tenant, name), None
        if key is None:
            job = await job_named(self._reads, tenant, name)
            key = job.key
        live = await self._live_answer(key, passport)
        epoch = self._live.epoch
        if live is not None and self.seen.allows(live.status) and self._trusts(live, epoch):
            return self._shown(live)
        job = job or await job_named(self._reads, tenant, name)
        stored = Answer(status_of(job), "database")
        newest = live if live and standing(live.status) > standing(stored.status) else stored
        if not self.seen.allows(newest.status):
            raise Unavailable(
                f"PostgreSQL's row of {job.job_id} is older than what was answered: a lagging or restored server?"
            )
        self._asked[job.key] = epoch
        self._asked.move_to_end(job.key)
        if len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        return self._shown(newest)

    def _trusts(self, answer: Answer, epoch: int) -> bool:
        """Whether a table's row cannot be behind what others have shown; owners decide that for themselves."""
        key = answer.status.tenant_id, answer.status.job_id
        return answer.source == "owner" or self._asked.get(key) == epoch

    async def _live_answer(self, key: Key, passport: Mapping[str, str] | None) -> Answer | None:
        """From a table. A copy here of a row that lives elsewhere (a standby, a partition just lost) may lag."""
        if not self._pulse.steady:
            return None
        owner = self._live.owner(*key)
        if owner is None:
            status = self._live.get(*key)
            return Answer(status, "table") if status else None
        status = await self._owners.status(owner, key, passport) if passport else None
        return Answer(status, "owner") if status else None

    def _shown(self, answer: Answer) -> Answer:
        self.seen.note(answer.status)
        return answer


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
