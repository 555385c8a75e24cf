"""The stage that mails each run's first report to those whom the upload or its tenant names.

Edits make the report anew, and send no further mail: `concord mail resend` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from agents.reports.content import Report
from agents.reports.delivery import DELAYS_S, Delivery, wait_s
from agents.reports.message import message
from agents.reports.rendering import Renderer
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.enrichments.enrichment import Enriched, Make, enrichment
from agents.stages.enrichments.report import report_name, report_on
from agents.stages.spec import Resources
from schemas import ids, topics
from schemas.conversations.names import conversation_of
from schemas.errors import InvalidInput, MailInDoubt, MailRefused, SettingsError, Transient
from schemas.events.enrichment import ReportDelivered
from schemas.jobs.rows import Job, run_fields
from schemas.mail.of_report import mail_of_report
from schemas.mail.rows import ENDED, Mail, resent
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.mail.ledger import MailLedger

#: Seconds for which an event waits for the mail server; a longer session goes on in the background.
QUICK_S: Final = 10.0

#: Sessions of a worker with the mail server at once.
AT_ONCE: Final = 4


class Database(Jobs, MailLedger, Clock, Protocol):
    """What the stage asks of the database."""


class Texts(Protocol):
    """Renders templates; see `agents.reports.rendering.Renderer`."""

    async def mail(self, templates: Mapping[str, str | None], values: Mapping[str, Any]) -> dict[str, str]:
        """Subject, text and HTML."""


@dataclass(frozen=True)
class Mails:
    """Mails the reports in a store."""

    store: Store
    database: Database
    accounts: EffectiveSettings
    renderer: Texts
    tasks: LeasedTasks
    delivery: Delivery
    #: Bytes of a report that is attached; a larger one is linked to, or named.
    attached_bytes: int
    #: Our URL for people, for links.
    public_url: str | None = None

    async def make(self, job: Job) -> Enriched | None:
        """Mail the report, unless that was done for an earlier version of the transcript.

        Raises:
            InvalidInput: There is no report, or the tenant's template fails.
            MailRefused: The mail server refuses the mail for all its recipients.
            MailInDoubt: It may have taken the mail and not answered.
            Transient: It takes the mail later.
            Unavailable: The database or the store is away.
        """
        if not job.options.get("mail_to") and await self.database.mail(job.tenant_id, job.job_id, job.run) is None:
            return Enriched()  # begun by a schedule, of a recording whose report nobody wants
        if await self._is_mailed_earlier(job):
            return Enriched()
        mail = await self.database.begin_mail(self._new(job))
        if mail.state not in ENDED or _is_asked_again(job, mail):
            key = ids.task_key("mail", job.tenant_id, job.job_id, job.run)
            reached: Mail | None = await self.tasks.run(key, lambda _: self._attempt(job), QUICK_S)
            if reached is None:
                return None
            mail = reached
        match mail.state:
            case "sent":
                return _delivered(job, mail)
            case "in_doubt":
                raise MailInDoubt(f"{mail.answer}; see `concord mail`")
            case "refused":
                raise MailRefused(f"the mail server refuses the mail: {mail.answer}")
            case _:
                raise Transient(f"the mail is sent later: {mail.answer}", retry_after=wait_s(mail))

    async def _is_mailed_earlier(self, job: Job) -> bool:
        """Whether an earlier run has mailed the report on this conversation: a later one makes up for what is missing.

        Raises:
            MailInDoubt: It may have.
        """
        if conversation_of(job) is None or _generation(job) > 1:
            return False
        for run in range(1, job.run):
            mail = await self.database.mail(job.tenant_id, job.job_id, run)
            if mail is not None and mail.state in ("sending", "in_doubt"):
                raise MailInDoubt(f"the mail of run {run} may have been taken; see `concord mail`")
            if mail is not None and mail.state == "sent":
                return True
        return False

    def _new(self, job: Job) -> Mail:
        return mail_of_report(job, self.delivery.sender, job.options.get("mail_to") or (), _generation(job))

    async def _attempt(self, job: Job) -> Mail | None:
        """The mail after an attempt, under its lease; None if another worker may still be at it."""
        new = self._new(job)
        mail = await self.database.begin_mail(new)
        if mail.state == "sending":
            return await self.delivery.settled(mail, await self.database.now())
        if mail.state in ENDED:
            if not _is_asked_again(job, mail):
                return mail
            mail = resent(mail, new.waiting)
            await self.database.keep_mail(mail)
        mail = replace(
            mail,
            transcript_version=new.transcript_version,
            generation=new.generation,
            message_id=new.message_id,
        )
        content = await self._content(job, mail)
        try:
            return await self.delivery.attempt(mail, content)
        except Transient as exc:
            raise Transient(str(exc), retry_after=wait_s(replace(mail, attempts=mail.attempts + 1))) from exc

    async def _content(self, job: Job, mail: Mail) -> bytes:
        status = job.enrichment.get("report")
        if status is None or status.state != "done":
            raise InvalidInput(f"there is no report to send: {status.error if status else 'none is made'}")
        pdf = await self.store.get(self.store.uri(report_name(job)))
        attached = len(pdf) <= self.attached_bytes
        content = await report_on(job, self.store, self.database)
        settings = await self.accounts.settings_of(job.tenant_id)
        templates = {"subject": settings.mail_subject, "text": settings.mail_text, "html": settings.mail_html}
        parts = await self.renderer.mail(templates, self._values(job, content, attached=attached))
        filename = f"{conversation_of(job) or job.reference or job.job_id}.pdf"
        # In a thread: 25 MB take a second.
        return await asyncio.to_thread(message, mail, self.delivery.sender, parts, pdf if attached else None, filename)

    def _values(self, job: Job, content: Report, *, attached: bool) -> dict[str, Any]:
        """What templates can show: `agents.reports.templates.NAMES`."""
        link = f"{self.public_url.rstrip('/')}/jobs/{job.job_id}/report" if self.public_url else ""
        return content.model_dump(mode="json", exclude={"turns"}) | {
            **run_fields(job),
            "reference": job.reference or "",
            "filename": job.filename,
            "version": job.transcript_version,
            "attached": attached,
            "link": link,
        }


def _is_asked_again(job: Job, mail: Mail) -> bool:
    """Whether somebody has had the mail begun again since it was attempted: a person, or a schedule."""
    generation = _generation(job)
    return generation > 1 and (mail.transcript_version, mail.generation) != (job.transcript_version, generation)


def _generation(job: Job) -> int:
    status = job.enrichment.get("mail")
    return status.generation if status is not None else 1


def _delivered(job: Job, mail: Mail) -> Enriched:
    if (mail.transcript_version, mail.generation) != (job.transcript_version, _generation(job)):
        return Enriched()  # sent, and announced, before the transcript was edited or the mail begun again
    return Enriched(
        event=ReportDelivered(
            **run_fields(job), message_id=mail.message_id, accepted=len(mail.accepted), refused=len(mail.refused)
        )
    )


async def _build(resources: Resources) -> Make:
    service = resources.mail_service()
    if service is None:
        raise SettingsError("the role mail needs SMTP_HOST and SMTP_FROM_EMAIL")
    renderer, tasks, database = Renderer(), resources.leased_tasks(AT_ONCE), resources.database
    resources.on_close(renderer.close)
    return Mails(
        resources.store,
        database,
        resources.accounts,
        renderer,
        tasks,
        Delivery(database, service.server, service.sender, service.domains),
        service.attached_bytes,
        service.public_url,
    ).make


SPEC = enrichment(
    "mail",
    version="mail/1",
    announces=topics.DELIVERED,
    make=_build,
    after=(topics.REPORT,),
    retries=len(DELAYS_S) + 3,
)
