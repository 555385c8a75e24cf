"""Carries out tenants' schedules: at each of their times, an enrichment is made again of the jobs that they are about.

A tick goes through these jobs a page at a time. Each job is asked for by a step whose event id is derived from
schedule, time and job: a page that is done again after a kill asks for nothing twice. All schedules whose time has come
take turns, and any worker may go on with any of them. A time that is missed is made up for once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from agents.upkeep.claims.polling import poll_claims
from agents.upkeep.stuck_enrichments import requested
from schemas import ids
from schemas.accounts.schedules import OVERVIEW, Schedule, WantedJobs, next_tick
from schemas.errors import InvalidInput
from schemas.events.job import JobStatus
from schemas.jobs.outcome import EnrichmentChange, Outcome, Step
from schemas.jobs.rows import Job
from sinks.ports.api.schedules import Ticks, wanted_jobs
from sinks.ports.clock import Clock
from sinks.ports.reads import Cursor, JobFilter, Page
from sinks.ports.steps import Steps

log = logging.getLogger(__name__)

#: The stage name of these steps, in the inbox and the audit log.
NAME: Final = "schedule"

#: Jobs of a page, seconds until the next one, and of the claim under which a worker does it.
PAGE: Final = 100
PAUSE_S, LEASE_S = 1.0, 60.0

#: Seconds between two looks for schedules whose time has come.
LOOK_S: Final = 2.0


class Database(Clock, Steps, Ticks, Protocol):
    """What is asked of the database."""


class ListsJobs(Protocol):
    """Lists jobs; see `sinks.ports.reads.Reads`."""

    async def jobs(self, tenant: str, wanted: JobFilter, *, limit: int, before: Cursor | None) -> Page:
        """A page of a tenant's jobs."""


class Overviews(Protocol):
    """Mails reports over many calls; see `agents.reports.overview_mail.OverviewMails`."""

    async def send(self, schedule: Schedule) -> tuple[int, str | None] | float:
        """Mail the report of a tick, once: the number of calls, and why it was not mailed; or the seconds after which
        to try again.
        """


@dataclass(frozen=True)
class Scheduler:
    """Carries out schedules."""

    database: Database
    reads: ListsJobs
    #: Kinds of enrichment that are made here.
    enrichments: tuple[str, ...]
    #: None if nothing is mailed here.
    overviews: Overviews | None = None
    #: Called with the name of each failpoint.
    passing: Callable[[str], None] = lambda _: None

    async def run(self) -> None:
        """Carry out what is due until cancelled, except while the database is unavailable."""
        await poll_claims(self.turn, LOOK_S, log, "schedules wait")

    async def turn(self) -> bool:
        """Do a page of the schedule whose turn it is; whether there was one. Raises Unavailable."""
        schedule = await self.database.claim_schedule(LEASE_S)
        if schedule is None:
            return False
        self.passing("schedule.claimed")
        if schedule.enrichment == OVERVIEW and self.overviews is not None:
            await self._mail(schedule, self.overviews)
        elif schedule.enrichment not in self.enrichments:
            there_are = ", ".join(self.enrichments) or "none"
            await self._end(schedule, 0, f"{schedule.enrichment} is not made here; there are: {there_are}")
        else:
            await self._ask(schedule)
        return True

    async def _ask(self, schedule: Schedule) -> None:
        """Do a page."""
        page = await self.reads.jobs(schedule.tenant_id, wanted_jobs(schedule), limit=PAGE, before=_place(schedule))
        steps = [begin_again(schedule, job) for job in page.jobs if _is_asked_for(schedule, job)]
        written = await self.database.commit(steps) if steps else []
        self.passing("schedule.asked")
        # What was asked for before a kill (None) counts, too.
        asked = sum(one is None or one.applied for one in written)
        if page.following is not None:
            # A page of which nothing is to be made costs the fleet nothing: the next one does not wait.
            await self.database.continue_tick(schedule, page.following, asked, PAUSE_S if steps else 0.0)
        else:
            await self._end(schedule, asked)

    async def _mail(self, schedule: Schedule, overviews: Overviews) -> None:
        try:
            # Within the claim; whoever has it next finds in the ledger of mails how far this came.
            async with asyncio.timeout(LEASE_S - 10):
                result = await overviews.send(schedule)
        except TimeoutError:
            result = PAUSE_S
        except InvalidInput as exc:
            result = 0, str(exc)
        if isinstance(result, tuple):
            await self._end(schedule, *result)
        else:
            await self.database.continue_tick(schedule, Cursor(schedule.due_at, ""), 0, result)

    async def _end(self, schedule: Schedule, asked: int, error: str | None = None) -> None:
        following = None
        if schedule.cron is not None:
            now = await self.database.now()
            try:
                following = next_tick(schedule.cron, schedule.timezone, max(now, schedule.due_at))
            except ValueError as exc:  # a time zone that is no more
                following, error = now + timedelta(days=1), f"no time follows: {exc}"
        await self.database.end_tick(schedule, following, asked, error)
        log.info("schedule %s of %s: %d jobs", schedule.schedule_id, schedule.tenant_id, schedule.asked + asked)


def _is_asked_for(schedule: Schedule, job: JobStatus) -> bool:
    """Whether it is to be made of this job, which the schedule's filter finds."""
    if not WantedJobs.model_validate(schedule.jobs).lacking:
        return True
    status = job.enrichment.get(schedule.enrichment)
    return status is None or status.state == "failed"


def begin_again(schedule: Schedule, job: JobStatus) -> Step:
    """The step that has the enrichment made again. Refused while it is being made; committed again, it does nothing."""
    about = f"{schedule.schedule_id}/{schedule.due_at.isoformat()}/{job.job_id}"
    outcome = beginning(job, schedule.enrichment, f"schedule {schedule.schedule_id}")
    return Step(NAME, ids.ingress_id(job.tenant_id, NAME, about), outcome)


def beginning(job: Job | JobStatus, kind: str, author: str) -> Outcome:
    """The outcome that begins an enrichment of this kind again, or for the first time."""
    status = job.enrichment.get(kind)
    generation = status.generation + 1 if status else 1
    return Outcome(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        enrichment=EnrichmentChange(
            run=job.run,
            kind=kind,
            state="pending",
            transcript_version=job.transcript_version,
            generation=generation,
            begins=True,
        ),
        later=(requested(job, kind, job.transcript_version, generation),),
        audit="requested",
        author=author,
    )


def _place(schedule: Schedule) -> Cursor | None:
    if schedule.after_created_at is None or schedule.after_job is None:
        return None
    return Cursor(schedule.after_created_at, schedule.after_job)
