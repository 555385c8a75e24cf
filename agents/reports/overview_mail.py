"""Mails the report over the calls that a schedule finds: one mail a tick, whatever is killed.

A tick's mail is a row of the ledger of mails, under the name of the schedule in place of a job's, and the minute of the
tick in place of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import quote

from agents.reports import delivery
from agents.reports.content import Report
from agents.reports.delivery import Delivery, wait_s
from agents.reports.message import message
from agents.reports.overview import CALLS, Call, Calls, overview
from agents.reports.rendering import Renderer
from schemas import blob_names, ids
from schemas.accounts.schedules import Schedule, zone
from schemas.errors import NotFound, Transient
from schemas.events.job import JobStatus
from schemas.mail.addresses import domain_of
from schemas.mail.rows import ENDED, Mail
from schemas.summaries import Summary
from sinks.ports.api.schedules import wanted_jobs
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.mail.ledger import MailLedger
from sinks.ports.reading.overviews import Overviews
from sinks.ports.reads import Cursor, JobFilter, Page

#: Calls of a report at most, those of a page, and items of a kind.
MOST, PAGE, MOST_ITEMS = 5_000, 500, 2_000

#: Summaries that are read at once.
AT_ONCE: Final = 8


class Database(MailLedger, Clock, Protocol):
    """What is asked of the database."""


class ListsJobs(Protocol):
    """Lists jobs; see `sinks.ports.reads.Reads`."""

    async def jobs(self, tenant: str, wanted: JobFilter, *, limit: int, before: Cursor | None) -> Page:
        """A page of a tenant's jobs."""


@dataclass(frozen=True)
class OverviewMails:
    """Makes and mails the reports of schedules. It is an `agents.upkeep.scheduler.Overviews`."""

    database: Database
    reads: ListsJobs
    facts: Overviews
    store: Store
    renderer: Renderer
    delivery: Delivery
    #: Our URL for people, for links.
    public_url: str | None = None

    async def send(self, schedule: Schedule) -> tuple[int, str | None] | float:
        """Mail the report of the tick that is due: on how many calls it is, and why it was not mailed; or the seconds
        after which to try again.

        Raises:
            InvalidInput: The report cannot be made.
            Unavailable: The database or the store is away.
        """
        mail = await self.database.begin_mail(self._new(schedule))
        if mail.state == "sending":
            settled = await self.delivery.settled(mail, await self.database.now())
            if settled is None:
                return delivery.SETTLES_S
            mail = settled
        calls = 0
        if mail.state not in ENDED:
            try:
                calls, content = await self._content(schedule, mail)
                mail = await self.delivery.attempt(mail, content)
            except Transient:
                return wait_s(replace(mail, attempts=mail.attempts + 1))
        if mail.state not in ENDED:
            return wait_s(mail)
        return calls, None if mail.state == "sent" else f"{mail.state.replace('_', ' ')}: {mail.answer}"

    def _new(self, schedule: Schedule) -> Mail:
        job_id, tick = f"schedule-{schedule.schedule_id}", int(schedule.due_at.timestamp()) // 60
        id = ids.terminal_id(schedule.tenant_id, job_id, tick, "overview")
        return Mail(
            tenant_id=schedule.tenant_id,
            job_id=job_id,
            run=tick,
            transcript_version=1,
            message_id=f"{id}@{domain_of(self.delivery.sender)}",
            waiting=list(schedule.mail_to),
        )

    async def _content(self, schedule: Schedule, mail: Mail) -> tuple[int, bytes]:
        found = await self._found(schedule)
        report = overview(schedule, found, zone(schedule.timezone), lambda job: self._link(schedule.tenant_id, job))
        pdf = await self.renderer.pdf(report)
        parts = await self.renderer.mail({}, _values(schedule, report))
        filename = f"{schedule.due_at:%Y-%m-%d}.pdf"
        return len(found.calls), await asyncio.to_thread(message, mail, self.delivery.sender, parts, pdf, filename)

    async def _found(self, schedule: Schedule) -> Calls:
        jobs: list[JobStatus] = []
        place: Cursor | None = None
        wanted = replace(wanted_jobs(schedule), oldest_first=False)
        while len(jobs) < MOST:
            page = await self.reads.jobs(schedule.tenant_id, wanted, limit=PAGE, before=place)
            jobs += page.jobs
            place = page.following
            if place is None:
                break
        del jobs[MOST:]
        names, tenant = [job.job_id for job in jobs], schedule.tenant_id
        known = {one.job_id: one for one in await self.facts.call_facts(tenant, names)}
        topics = dict(zip(names, await self._topics(jobs[:CALLS]), strict=False))
        calls = [
            Call(job, known[job.job_id].duration_ms, known[job.job_id].sentiment, topics.get(job.job_id))
            for job in jobs
            if job.job_id in known
        ]
        actions = await self.facts.items_of_calls(tenant, names, "action_item", MOST_ITEMS)
        entities = await self.facts.items_of_calls(tenant, names, "entity", MOST_ITEMS)
        return Calls(calls, actions, entities, is_cut=place is not None)

    async def _topics(self, jobs: Sequence[JobStatus]) -> list[str | None]:
        limit = asyncio.Semaphore(AT_ONCE)

        async def topic(job: JobStatus) -> str | None:
            if "summary" not in job.enrichment:
                return None
            name = blob_names.summary(job.tenant_id, job.job_id, job.run, job.transcript_version)
            async with limit:
                try:
                    return Summary.model_validate_json(await self.store.get(self.store.uri(name))).topic
                except NotFound:
                    return None

        return list(await asyncio.gather(*map(topic, jobs)))

    def _link(self, tenant: str, job_id: str) -> str | None:
        """The job in the console."""
        if not self.public_url:
            return None
        return f"{self.public_url.rstrip('/')}/#/{quote(tenant, safe='')}/{quote(job_id, safe='')}"


def _values(schedule: Schedule, report: Report) -> dict[str, object]:
    """What the default templates show."""
    return report.model_dump(mode="json", exclude={"turns"}) | {
        "job_id": str(schedule.schedule_id),
        "attached": True,
        "link": "",
    }
