"""What becomes of a request for a conversation: a new job, the next run of one that has failed, or nothing. No I/O."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from schemas import topics
from schemas.accounts.settings import AccountSettings
from schemas.conversations import names
from schemas.conversations.names import FETCH
from schemas.conversations.processing import processing
from schemas.errors import Conflict, MailInDoubt
from schemas.events.conversation import ConversationFetch, ConversationRequested
from schemas.events.job import StepState
from schemas.jobs.outcome import Failure, Later, Outcome, failed_upload
from schemas.jobs.rows import Job, run_fields

NOTHING_SET: Final = AccountSettings()

_TAKEN: Final = "conversation_id: an upload has this conversation's reference; give that another one"


def redaction_options(settings: AccountSettings) -> dict[str, object]:
    """The options of a conversation whose account has personal data hidden; none for another account."""
    return {"redact_pii": True, "redact": settings.redact or "keep"} if settings.redact_pii else {}


def request_outcome(
    request: ConversationRequested,
    existing: Job | None,
    now: datetime,
    *,
    first_run: int = 1,
    settings: AccountSettings = NOTHING_SET,
) -> Outcome:
    """The outcome of a request, where `existing` is the conversation's job. `first_run` is the number of a new job's
    first run: behind those of a deleted one. `settings` are those of the account.

    A repeat changes nothing while the processing goes on and when it is complete. One that has failed, or was
    cancelled, begins its next run, which makes up for what is missing: what is stored is not fetched again, and a mail
    that was sent is not sent again. A mail in doubt is a person's to send again.

    Raises:
        Conflict: The job is an upload.
    """
    if existing is None:
        return _created(request, now, first_run, settings)
    if names.conversation_of(existing) != request.conversation_id:
        raise Conflict(_TAKEN)
    state = processing(existing)
    if state.status not in ("failed", "cancelled") or state.code == MailInDoubt.code or not existing.ended:
        return Outcome(tenant_id=existing.tenant_id, job_id=existing.job_id, audit="repeated")
    begun = replace(
        existing,
        run=existing.run + 1,
        status="uploaded",
        options=existing.options | _options(request) | redaction_options(settings),
        steps={FETCH: StepState(state="running")},
        enrichment={},
        reason=None,
        code=None,
        completed_at=None,
        queued_at=None,
    )
    return Outcome(
        tenant_id=begun.tenant_id, job_id=begun.job_id, begin=begun, later=(_looked_at(begun, now),), audit="started"
    )


def refused(request: ConversationRequested, failure: Failure, run: int = 1) -> Outcome:
    """The outcome of a request that cannot be carried out: its job is created as failed, so that its status and what to
    do can be queried. Nothing changes if there is the job.
    """
    return failed_upload(_new_job(request, run), FETCH, failure)


def _created(request: ConversationRequested, now: datetime, run: int, settings: AccountSettings) -> Outcome:
    job = _new_job(request, run)
    job = replace(job, options=job.options | redaction_options(settings))
    nameless = replace(job, reference=None)
    return Outcome(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        create=job,
        later=(_looked_at(job, now),),
        taken=failed_upload(nameless, FETCH, Failure(_TAKEN, Conflict.code)),
        audit="started",
    )


def _new_job(request: ConversationRequested, run: int) -> Job:
    reference = names.reference(request.conversation_id)
    return Job(
        tenant_id=request.tenant_id,
        job_id=request.job_id,
        reference=reference,
        run=run,
        filename=names.filename(request.conversation_id),
        audio_uri=reference,
        options=_options(request),
        steps={FETCH: StepState(state="running")},
    )


def _options(request: ConversationRequested) -> dict[str, object]:
    return {"mail_to": [request.email_id], "verify": request.options.verify}


def _looked_at(job: Job, now: datetime) -> Later:
    """What looks whether the conversation has ended."""
    conversation_id = job.audio_uri.removeprefix(names.SCHEME)
    data = ConversationFetch(**run_fields(job), conversation_id=conversation_id, since=now)
    return Later(topics.FETCH_DUE.name, data, kind="conversation.fetch")
