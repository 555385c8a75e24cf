"""Has the report on a job mailed to whom a person names: once for a request, however often that is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from agents.upkeep.scheduler import beginning
from schemas import ids
from schemas.errors import Conflict
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Job
from schemas.mail.of_report import mail_of_report
from sinks.ports.steps import Steps

#: The stage name of these steps.
NAME: Final = "mail request"


@dataclass(frozen=True)
class MailRequests:
    """Requests to mail reports, from the address `sender`."""

    database: Steps
    sender: str

    async def send(self, job: Job, recipients: Sequence[str], author: str, id: UUID) -> None:
        """Have the newest report mailed to these; `id` identifies the request.

        Raises:
            Conflict: There is no report, or a mail of this job is being sent.
        """
        report = job.enrichment.get("report")
        if report is None or report.state != "done":
            raise Conflict(f"there is no report to send: {report.error or report.state if report else 'none is made'}")
        status = job.enrichment.get("mail")
        mail = mail_of_report(job, self.sender, recipients, status.generation + 1 if status else 1)
        outcome = replace(beginning(job, "mail", author), mail=mail)
        [written] = await self.database.commit([Step(NAME, ids.ingress_id(job.tenant_id, NAME, str(id)), outcome)])
        if written is not None and not written.applied:  # None: it was asked for before
            raise Conflict("a mail of this job is being sent: ask again when its status says that it has ended")
