"""Has the report on a job mailed to whom a person names: once for a request, however often that is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from agents.upkeep.scheduler import beginning
from schemas import ids, topics
from schemas.errors import Conflict
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Job, run_fields
from schemas.mail.addresses import domain_of
from schemas.mail.rows import Mail
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
        outcome = replace(beginning(job, "mail", author), mail=self._row(job, recipients))
        [written] = await self.database.commit([Step(NAME, ids.ingress_id(job.tenant_id, NAME, str(id)), outcome)])
        if written is not None and not written.applied:  # None: it was asked for before
            raise Conflict("a mail of this job is being sent: ask again when its status says that it has ended")

    def _row(self, job: Job, recipients: Sequence[str]) -> Mail:
        status = job.enrichment.get("mail")
        edited = "" if job.transcript_version == 1 else f"/{job.transcript_version}"
        id = ids.terminal_id(job.tenant_id, job.job_id, job.run, f"{topics.DELIVERED.name}/mail{edited}")
        return Mail(
            **run_fields(job),
            transcript_version=job.transcript_version,
            generation=status.generation + 1 if status else 1,
            message_id=f"{id}@{domain_of(self.sender)}",
            waiting=list(recipients),
        )
