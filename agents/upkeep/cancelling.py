"""Ends jobs that nobody wants any more: each once, by the same way as every other end of a job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Final, Protocol

from schemas import ids
from schemas.errors import Cancelled
from schemas.events.job import StepState
from schemas.jobs.outcome import Failure, Outcome, Progress, Step, end_of_failed
from schemas.jobs.rows import Job
from sinks.ports.jobs import Jobs
from sinks.ports.steps import Steps

#: The stage's name of these steps, in the inbox, the audit log and `job.failed`.
NAME: Final = "cancel"

#: Jobs of one transaction.
MANY: Final = 100


class Cancellable(Steps, Jobs, Protocol):
    """What cancelling asks of the database."""


def cancelled(job: Job, reason: str) -> Step:
    """The step that ends the job's run. Committed twice, it changes nothing."""
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
    """End those of these jobs that have not ended; how many. What a recognizer was asked for already may be billed.

    Raises Unavailable when the database cannot be reached; nothing is then ended, or all.
    """
    steps = [cancelled(job, reason) for job in jobs if not job.ended]
    written = await database.commit(steps) if steps else []
    return sum(one is not None and one.applied for one in written)


async def cancel_all(
    database: Cancellable, tenant_id: str, statuses: Collection[str], reason: str
) -> AsyncIterator[int]:
    """End a tenant's open jobs in these statuses, `MANY` in a transaction; how many ended by each.

    Jobs that move on meanwhile are ended in the status that they have then.
    """
    after = ""
    while keys := await database.open_jobs(tenant_id, statuses, after, MANY):
        after = keys[-1][1]
        jobs = [job for key in keys if (job := await database.job(*key)) is not None]
        yield await cancel(database, jobs, reason)
