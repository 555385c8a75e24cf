"""The status of a job, from whoever knows best: this worker's table, that of the worker with the row, PostgreSQL.

A table is quick, and may lag or be moving; PostgreSQL is the truth. Of two answers the newer wins, and this worker
never answers with an older one than it did before. Nor with an older one than another worker did before it: after
partitions have moved, PostgreSQL is asked once about every job, and nothing is shown anywhere that was not there first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas.errors import NotFound, Unavailable
from schemas.jobs import status_of
from web.views import NO_JOB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from schemas.events import JobStatus
    from sinks import Reads
    from web.auth import Caller
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
        self._newest: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def allows(self, status: JobStatus) -> bool:
        """Whether showing this would not be a step back."""
        known = self._newest.get(status.job_id)
        return known is None or standing(status) >= known

    def note(self, status: JobStatus) -> None:
        """This is being shown."""
        if self.allows(status):
            self._newest[status.job_id] = standing(status)
            self._newest.move_to_end(status.job_id)
            if len(self._newest) > self._size:
                self._newest.popitem(last=False)


class Statuses:
    """Answers for jobs' statuses; everything that shows one elsewhere (lists, events) notes it in `seen`."""

    def __init__(self, live: LiveJobs, reads: Reads, owners: Owners, pulse: Pulse) -> None:
        self._live, self._reads, self._owners, self._pulse = live, reads, owners, pulse
        self.seen = Seen()
        #: The epoch of the table in which PostgreSQL was asked about a job last.
        self._asked: OrderedDict[str, int] = OrderedDict()

    async def newest(self, caller: Caller, job_id: str, passport: Mapping[str, str] | None) -> Answer:
        """The job's status. `passport` is what the request may be passed on with; None if it may not.

        Raises `NotFound` also for what is another tenant's, after the same look into PostgreSQL as for an unknown job,
        so that not even the time it takes tells them apart; `Unavailable` when only a step back could be answered.
        """
        live = await self._live_answer(job_id, passport)
        if live is not None and not caller.sees(live.status.tenant_id):
            live = None
        epoch = self._live.epoch
        if live is not None and self.seen.allows(live.status) and self._trusts(live, epoch):
            return self._shown(live)
        job = await self._reads.job(caller.tenant, job_id)
        if job is None:
            raise NotFound(NO_JOB)
        stored = Answer(status_of(job), "database")
        newest = live if live and standing(live.status) > standing(stored.status) else stored
        if not self.seen.allows(newest.status):
            raise Unavailable(
                f"PostgreSQL's row of {job_id} is older than what was answered: a lagging or restored server?"
            )
        self._asked[job_id] = epoch
        self._asked.move_to_end(job_id)
        if len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        return self._shown(newest)

    def _trusts(self, answer: Answer, epoch: int) -> bool:
        """Whether a table's row cannot be behind what others have shown; owners decide that for themselves."""
        return answer.source == "owner" or self._asked.get(answer.status.job_id) == epoch

    async def _live_answer(self, job_id: str, passport: Mapping[str, str] | None) -> Answer | None:
        """From a table. A copy here of a row that lives elsewhere (a standby, a partition just lost) may lag."""
        if not self._pulse.steady:
            return None
        owner = self._live.owner(job_id)
        if owner is None:
            status = self._live.get(job_id)
            return Answer(status, "table") if status else None
        status = await self._owners.status(owner, job_id, passport) if passport else None
        return Answer(status, "owner") if status else None

    def _shown(self, answer: Answer) -> Answer:
        self.seen.note(answer.status)
        return answer
