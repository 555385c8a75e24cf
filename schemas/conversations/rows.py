"""Rows about conversations: of the view over jobs, of URLs that were issued, and of looks at agents' lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from schemas.conversations.processing import Status
from schemas.jobs.rows import Job


@dataclass(frozen=True, slots=True)
class Taken:
    """A conversation's job after a request."""

    job: Job
    #: Whether the request has begun it, or its next run.
    begun: bool
    #: Whether there was a job already.
    known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRow:
    """A row of the view `conversation_processing`: see `Processing`."""

    tenant_id: str
    job_id: str
    run: int
    conversation_id: str
    email_id: str | None
    status: Status
    progress: int
    current_step: str | None
    error_message: str | None
    error_code: str | None
    created_at: datetime
    updated_at: datetime
    #: When its last step ended; None while it goes on.
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedUrl:
    """The newest URL that gives read access to a conversation's file."""

    tenant_id: str
    job_id: str
    #: The file's.
    uri: str
    url: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLook:
    """A claimed look at the list of an agent's conversations."""

    tenant_id: str
    agent_id: str
    #: Whom the reports on its conversations are mailed to.
    email_id: str
    #: Conversations that began before are known.
    looked_to: datetime
    #: When it was claimed.
    began_at: datetime
    token: int


@dataclass(frozen=True, slots=True)
class ConversationDay:
    """Conversations that were asked for on a day (UTC)."""

    day: str
    #: How many have each status now.
    by_status: Mapping[Status, int]
    #: Seconds from the request to the mail, of half of the complete ones; None if none is.
    median_s: float | None


@dataclass(frozen=True, slots=True)
class ConversationDays:
    """The days of a time, in order; those without conversations are left out."""

    days: tuple[ConversationDay, ...]
    #: As that of a day, over all of them: the medians of days do not tell it.
    median_s: float | None
