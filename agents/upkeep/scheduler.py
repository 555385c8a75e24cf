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
from datetime import datetime, timedelta
from typing import Final, Protocol

from agents.upkeep.stuck_enrichments import requested
from schemas import ids
from schemas.accounts.schedules import Schedule, WantedJobs, next_tick
from schemas.errors import Unavailable
from schemas.events.job import JobStatus
from schemas.jobs.outcome import EnrichmentChange, Outcome, Step
from schemas.jobs.rows import Job
from sinks.ports.api.schedules import Ticks
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


@dataclass(frozen=True)
class Scheduler:
    """Carries out schedules."""

    database: Database
    reads: ListsJobs
    #: Kinds of enrichment that are made here.
    enrichments: tuple[str, ...]
    #: Called with the name of each failpoint.
    passing: Callable[[str], None] = lambda _: None

    async def run(self) -> None:
        """Carry out what is due until cancelled, except while the database is unavailable."""
        while True:
            try:
                while await self.turn():
                    pass
            except Unavailable as exc:
                log.debug("schedules wait: %s", exc)
            await asyncio.sleep(LOOK_S)

    async def turn(self) -> bool:
        """Do a page of the schedule whose turn it is; whether there was one. Raises Unavailable."""
        schedule = await self.database.claim_schedule(LEASE_S)
        if schedule is None:
            return False
        self.passing("schedule.claimed")
        if schedule.enrichment not in self.enrichments:
            there_are = ", ".join(self.enrichments) or "none"
            await self._end(schedule, 0, f"{schedule.enrichment} is not made here; there are: {there_are}")
            return True
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
        return True

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


def wanted_jobs(schedule: Schedule) -> JobFilter:
    """The jobs that the schedule's tick is about. None is uploaded after it, so that the tick ends."""
    wanted = WantedJobs.model_validate(schedule.jobs)
    return JobFilter(
        statuses=frozenset({"completed"}),
        created_from=_days_before(schedule.due_at, wanted.last_days),
        created_to=schedule.due_at,
        filename=wanted.filename,
        reference_prefix=wanted.reference_prefix,
        metadata=frozenset(wanted.metadata.items()),
        language=wanted.language.lower() if wanted.language else None,
        oldest_first=True,
    )


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


def _days_before(tick: datetime, days: float | None) -> datetime | None:
    return tick - timedelta(days=days) if days is not None else None
