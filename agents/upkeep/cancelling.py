"""Cancels jobs: each run ends once, through the same transaction as every other end of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final, Protocol

from schemas import ids
from schemas.errors import Cancelled
from schemas.events.job import StepState
from schemas.ids import Key
from schemas.jobs.outcome import Failure, Outcome, Progress, Step, end_of_failed
from schemas.jobs.rows import Job
from schemas.jobs.transitions import Written

#: The stage name of these steps in the inbox, the audit log and `job.failed`.
NAME: Final = "cancel"

#: Most jobs in one transaction.
MANY: Final = 100


class Cancellable(Protocol):
    """The database operations that cancelling needs. All raise Unavailable."""

    async def commit(self, steps: Sequence[Step]) -> list[Written | None]:
        """Commit all steps in one transaction; what each has written, None for a step that was committed before."""

    async def open_jobs(self, tenant_id: str, statuses: Collection[str], after: str, limit: int) -> list[Key]:
        """The keys of the tenant's jobs in these statuses, ordered by id, from the first id after `after` on."""

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """The job, or None if there is none."""


def cancelled(job: Job, reason: str) -> Step:
    """The step that ends the job's run. Committing it a second time changes nothing."""
    failure = Failure(reason, Cancelled.code)
    state = StepState(state="failed", error=reason)
    outcome = Outcome(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        run=job.run,
        progress=Progress(
            run=job.run, status="failed", stage=NAME, step=state, reason=reason, columns={"code": failure.code}
        ),
        later=end_of_failed(job, NAME, failure),
        audit="failed",
        error=reason,
    )
    return Step(NAME, ids.ingress_id(job.tenant_id, NAME, f"{job.job_id}/{job.run}"), outcome)


async def cancel(database: Cancellable, jobs: Collection[Job], reason: str) -> int:
    """Cancel those of these jobs that have not ended; how many. Requests already sent to a recognizer may be billed.

    Raises:
        Unavailable: the database cannot be reached; either all of the jobs are then cancelled, or none.
    """
    steps = [cancelled(job, reason) for job in jobs if not job.ended]
    results = await database.commit(steps) if steps else []
    return sum(written is not None and written.applied for written in results)


async def cancel_all(
    database: Cancellable, tenant_id: str, statuses: Collection[str], reason: str
) -> AsyncIterator[int]:
    """Cancel a tenant's open jobs in these statuses, `MANY` in a transaction; yields the number cancelled by each.

    A job whose status changes meanwhile is cancelled in its new status. Raises Unavailable; the transactions before
    are then committed.
    """
    after = ""
    while keys := await database.open_jobs(tenant_id, statuses, after, MANY):
        after = keys[-1][1]
        jobs = [job for key in keys if (job := await database.job(*key)) is not None]
        yield await cancel(database, jobs, reason)
