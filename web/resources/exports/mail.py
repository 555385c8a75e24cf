"""`/jobs/{id}/mail`: what became of the mail of a job's report, and sending the report to somebody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from aiohttp import web
from pydantic import ConfigDict, Field

from schemas.errors import NotFound
from schemas.events.base import Data
from schemas.mail.addresses import Recipients
from schemas.mail.rows import MailState
from web.auth.access import WRITE
from web.live.job_lookup import find_job
from web.problems import ApiProblem
from web.resources.jobs.links import link_to
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from schemas.jobs.rows import Job
    from schemas.mail.rows import Mail
    from sinks.ports.mail.ledger import MailLedger
    from sinks.ports.reads import Reads
    from sinks.ports.tenants import PerTenant


class SendsReports(Protocol):
    """Has reports mailed; see `agents.upkeep.mail_requests.MailRequests`."""

    async def send(self, job: Job, recipients: Sequence[str], author: str, id: UUID) -> None:
        """Have the newest report mailed. Raises Conflict."""


class MailBody(Data):
    """Whom the report is sent to."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[Recipients, Field(min_length=1)]


class MailView(Data):
    """The mail of a run's report."""

    job_id: str
    run: int
    transcript_version: int
    state: MailState = Field(
        description="`in_doubt`: the mail server got it and did not answer; it is not sent again by itself"
    )
    accepted: list[str] = Field(description="addresses for which the mail server has taken it")
    refused: dict[str, Any] = Field(description="by address, why it has not")
    waiting: list[str] = Field(description="addresses of which that is not known yet")
    attempts: int
    answer: str | None = Field(description="the mail server's last one")
    updated_at: datetime | None


_EXAMPLE: Final = {
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "run": 1,
    "transcript_version": 1,
    "state": "sent",
    "accepted": ["ann@example.com"],
    "refused": {},
    "waiting": [],
    "attempts": 1,
    "answer": "250 2.0.0 Ok",
    "updated_at": "2026-05-01T12:00:09Z",
}


_NO_MAIL: Final = (
    "nothing is mailed here: have an operator set SMTP_HOST and SMTP_FROM_EMAIL, and name report and mail in "
    "CONCORD_ENRICHMENTS"
)


@dataclass(frozen=True)
class JobMail:
    """The mail of a job's report."""

    reads: Reads
    ledger: PerTenant[MailLedger]
    #: None where nothing is mailed.
    sends: SendsReports | None

    def routes(self) -> list[AnyRoute]:
        """Show, send."""
        of_job: dict[str, Any] = {"path": "/jobs/{id}/mail", "parameters": JobSelector, "access": WRITE}
        return [
            Route(
                method="GET",
                operation_id="jobs_id_mail",
                summary="What became of the mail of a job's report",
                handler=self.show,
                responses={
                    200: ResponseSpec("the mail of the newest run", MailView, _EXAMPLE),
                    409: ResponseSpec(AMBIGUOUS),
                },
                **of_job,
            ),
            Route(
                method="POST",
                operation_id="send_jobs_id_mail",
                summary="Mail the newest report on a job to somebody",
                handler=self.send,
                body=RequestBody(MailBody, {"to": ["ann@example.com"]}, max_bytes=16_384),
                responses={
                    202: ResponseSpec("it is on its way; the job's status, and this path, say what becomes of it"),
                    409: ResponseSpec("there is no report yet, or a mail is being sent; or " + AMBIGUOUS),
                    422: ResponseSpec("nothing is mailed by this installation; which settings it lacks"),
                },
                accepts_idempotency_key=True,
                **of_job,
            ),
        ]

    async def show(self, request: ApiRequest[JobSelector, None]) -> MailView:
        """The mail of the newest run."""
        job = await find_job(self.reads, *request.parameters.scope(request.caller))
        mail = await self.ledger.acting_as(job.tenant_id).mail(job.tenant_id, job.job_id, job.run)
        if mail is None:
            raise NotFound("no report on this job was mailed")
        return _view(mail)

    async def send(self, request: ApiRequest[JobSelector, MailBody]) -> web.StreamResponse:
        """Have the report mailed."""
        job = await find_job(self.reads, *request.parameters.scope(request.caller))
        if self.sends is None:
            raise ApiProblem("unprocessable", _NO_MAIL)
        await self.sends.send(job, request.body.to, request.caller.id, request.once.new_id())
        where = link_to(job.tenant_id, job.job_id, "mail", operator=request.caller.is_operator)
        return web.Response(status=202, headers={"Location": where})


def _view(mail: Mail) -> MailView:
    return MailView(**{name: getattr(mail, name) for name in MailView.model_fields})
