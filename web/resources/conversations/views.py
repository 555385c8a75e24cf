"""What is shown of a conversation's processing: `{success, message, data}`, as its interface has it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from schemas.conversations.names import ConversationId, job_id, processing_id, started_at
from schemas.conversations.processing import ENDED, Processing, Status, estimated_completion
from schemas.conversations.rows import ConversationRow
from schemas.events.base import Data
from schemas.events.conversation import ConversationOptions
from schemas.ids import Name
from schemas.jobs.rows import Job
from schemas.mail.addresses import MailAddress
from schemas.summaries import Sentiment, Summary
from web.resources.conversations.urls import PATH, ConversationFiles


class NewConversation(BaseModel):
    """A conversation to be processed."""

    model_config = ConfigDict(extra="forbid")

    email_id: MailAddress = Field(description="whom the report is mailed to")
    account_id: Annotated[Name, Field(description="whose conversation it is: the tenant of the API key")]
    conversation_id: ConversationId = Field(description="as ElevenLabs names it")
    options: ConversationOptions | None = None


class Accepted(Data):
    """A conversation that is on its way."""

    conversation_id: str
    processing_id: str = Field(description="under which it is asked for")
    status: Status
    estimated_completion: datetime = Field(description="when it is likely to be complete; when it was, if it is")


class AcceptedAnswer(Data):
    """The answer to a request."""

    success: bool
    message: str
    data: Accepted


class ActionView(Data):
    """What somebody is to do."""

    text: str
    who: str | None
    when: str | None


class SummaryFields(Data):
    """What a conversation is about; `/jobs/{id}/summary` has the words on which each item rests."""

    topic: str | None
    sentiment: Sentiment | None
    key_points: list[str]
    action_items: list[ActionView]


class FailureView(Data):
    """A step that has failed."""

    step: str
    error: str | None
    error_code: str = Field(description="error code for programs")
    what_to_do: str


class ProcessingView(Data):
    """How far a conversation is."""

    processing_id: str
    conversation_id: str
    account_id: str
    email_id: str | None
    status: Status
    progress: int = Field(ge=0, le=100, description="percent; of one that has failed, where it ended")
    current_step: str | None = Field(description="the stage that works on it, or in which it ended; null at its end")
    error: str | None = Field(description="why it has failed, or why its step is tried again")
    error_code: str | None = Field(description="error code for programs, if it has failed or was cancelled")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = Field(description="when its last step ended; null while it goes on")


class ProcessingDetails(ProcessingView):
    """The same with what there is of it until now."""

    what_to_do: str | None = Field(description="what can be done about its error")
    failures: list[FailureView] = Field(
        description="each step that has failed, the first of which `error` and `what_to_do` are about; also while "
        "later steps go on"
    )
    estimated_completion: datetime
    started_at: datetime | None = Field(description="when the call began; null where ElevenLabs does not tell")
    notes: list[str] = Field(description="sentences about the conversation and its recording")
    files: ConversationFiles
    summary: SummaryFields | None
    links: dict[str, str]


class ProcessingAnswer(Data):
    """The answer about one conversation."""

    success: bool
    message: str
    data: ProcessingDetails


#: What each status means, for `message`.
MESSAGES: Final[dict[Status, str]] = {
    "pending": "The conversation waits for its turn.",
    "extracting": "The conversation is being fetched from ElevenLabs.",
    "storing": "The transcript and the recording are being stored.",
    "summarizing": "The conversation is being summarised.",
    "generating_report": "The report is being made.",
    "sending_email": "The report is being mailed.",
    "completed": "The report was mailed.",
    "failed": "The processing has failed.",
    "cancelled": "The processing was cancelled.",
    "archived": "The report was mailed; the files are removed, as their retention is over.",
}


def accepted(job: Job, conversation_id: str, state: Processing, now: datetime) -> Accepted:
    """What the answer to a request says."""
    return Accepted(
        conversation_id=conversation_id,
        processing_id=processing_id(job.job_id),
        status=state.status,
        estimated_completion=estimated_completion(state, _begun_at(job, now), now),
    )


def processing_view(row: ConversationRow) -> ProcessingView:
    """A conversation in a list."""
    return ProcessingView(
        processing_id=processing_id(row.job_id),
        conversation_id=row.conversation_id,
        account_id=row.tenant_id,
        email_id=row.email_id,
        status=row.status,
        progress=row.progress,
        current_step=row.current_step,
        error=row.error_message,
        error_code=row.error_code,
        created_at=row.created_at,
        updated_at=row.updated_at,
        completed_at=row.completed_at,
    )


def details(
    job: Job,
    conversation_id: str,
    state: Processing,
    files: ConversationFiles,
    summary: Summary | None,
    now: datetime,
) -> ProcessingDetails:
    """Everything about one conversation."""
    id, created_at = processing_id(job.job_id), job.created_at or now
    return ProcessingDetails(
        processing_id=id,
        conversation_id=conversation_id,
        account_id=job.tenant_id,
        email_id=next(iter(job.options.get("mail_to") or ()), None),
        status=state.status,
        progress=state.progress,
        current_step=state.current_step,
        error=state.error,
        error_code=state.code,
        what_to_do=state.what_to_do,
        failures=[
            FailureView(step=one.step, error=one.error, error_code=one.code, what_to_do=one.what_to_do)
            for one in state.failures
        ],
        created_at=created_at,
        updated_at=job.updated_at or created_at,
        completed_at=state.ended_at,
        estimated_completion=estimated_completion(state, _begun_at(job, now), now),
        started_at=started_at(job),
        notes=list(_notes(job)),
        files=files,
        summary=_summary(summary) if summary else None,
        links=_links(id, job.job_id, state.status),
    )


def _begun_at(job: Job, now: datetime) -> datetime:
    """When its run began: a first one with the job."""
    return (job.created_at if job.run == 1 else job.updated_at) or now


def _notes(job: Job) -> Iterable[str]:
    return (note for step in job.steps.values() for note in step.notes or ())


def _summary(summary: Summary) -> SummaryFields:
    return SummaryFields(
        topic=summary.topic,
        sentiment=summary.sentiment,
        key_points=[point.text for point in summary.key_points],
        action_items=[ActionView(text=item.text, who=item.who, when=item.when) for item in summary.action_items],
    )


def _links(id: str, job_id: str, status: Status) -> dict[str, str]:
    own = f"{PATH}/{id}"
    links = {"self": own, "history": f"/jobs/{job_id}/audit", "job": f"/jobs/{job_id}"}
    return links if status in ENDED else links | {"cancel": own}


#: Examples for the documentation, of one conversation.
CONVERSATION: Final = "conv_01k2m3n4p5q6r7s8t9v0w1x2y3"
REQUEST: Final[dict[str, Any]] = {
    "email_id": "ann@example.com",
    "account_id": "acme",
    "conversation_id": CONVERSATION,
}
_JOB: Final = job_id("acme", CONVERSATION)
_ID: Final = processing_id(_JOB)
ACCEPTED: Final[dict[str, Any]] = {
    "success": True,
    "message": "The conversation is on its way.",
    "data": {
        "conversation_id": CONVERSATION,
        "processing_id": _ID,
        "status": "pending",
        "estimated_completion": "2026-05-01T12:05:00Z",
    },
}
ROW: Final[dict[str, Any]] = {
    "processing_id": _ID,
    "conversation_id": CONVERSATION,
    "account_id": "acme",
    "email_id": "ann@example.com",
    "status": "completed",
    "progress": 100,
    "current_step": None,
    "error": None,
    "error_code": None,
    "created_at": "2026-05-01T12:00:00Z",
    "updated_at": "2026-05-01T12:00:41Z",
    "completed_at": "2026-05-01T12:00:41Z",
}
DETAILS: Final[dict[str, Any]] = {
    "success": True,
    "message": MESSAGES["completed"],
    "data": ROW
    | {
        "what_to_do": None,
        "failures": [],
        "estimated_completion": "2026-05-01T12:00:41Z",
        "started_at": "2026-05-01T11:54:10Z",
        "notes": [],
        "files": {
            "transcript": {
                "url": f"https://bucket.s3.amazonaws.com/acme/transcripts/{CONVERSATION}.txt?X-Amz-Signature=...",
                "expires_at": "2026-05-02T12:03:00Z",
                "size_bytes": 412,
                "content_type": "text/plain; charset=utf-8",
                "checksum": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            },
            "audio": None,
            "report": None,
        },
        "summary": {
            "topic": "An appointment is moved",
            "sentiment": "positive",
            "key_points": ["The appointment on Tuesday is moved to Thursday at ten."],
            "action_items": [{"text": "Confirm the appointment.", "who": "the practice", "when": None}],
        },
        "links": _links(_ID, _JOB, "completed"),
    },
}
