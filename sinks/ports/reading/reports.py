"""The port of reports: what happened to a job, and what a tenant did and used up in a time.

Each reads the rows of one job, or of a time that its caller bounds: none costs more for what was before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from schemas.accounts.changes import About
from schemas.jobs.rows import ProviderRequest


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry of a job's audit trail."""

    #: Rises with time.
    id: int
    at: datetime
    run: int
    step: str
    what: str
    duration_ms: float | None
    #: Number of earlier attempts at the event.
    attempt: int
    error: str | None
    #: Who did it, where a person did: the id of an API key, for example.
    author: str | None = None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """A change of a tenant's keys, settings or webhooks, from its audit log."""

    #: Rises with time.
    id: int
    at: datetime
    about: str
    what: str
    #: The id of what was changed; None of settings.
    subject: str | None
    details: Mapping[str, Any] | None
    #: Who did it; None if the fleet itself did.
    author: str | None


@dataclass(frozen=True, slots=True)
class StepWork:
    """What the events of one step of a run cost, added up."""

    step: str
    events: int
    retries: int
    working_ms: float


@dataclass(frozen=True, slots=True)
class UsedUp:
    """What requests to a provider used up, added up."""

    #: A day in UTC as 2026-05-01, or a job's id; empty where neither is told apart.
    of: str
    provider: str
    #: See `schemas.jobs.rows.Usage`.
    unit: str
    quantity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What is known of one run besides its job's row."""

    work: list[StepWork]
    provider_requests: list[ProviderRequest]
    #: `schemas.words.Quality` as JSON; empty without a transcript.
    quality: Mapping[str, Any]
    usage: list[UsedUp]


@dataclass(frozen=True, slots=True)
class DayCount:
    """Jobs that were created on a day (UTC) and have a status now, and how much audio they are."""

    day: str
    status: str
    jobs: int
    audio_ms: int


@dataclass(frozen=True, slots=True)
class FailedExample:
    """One of the newest jobs that failed with a code, and how many did."""

    code: str | None
    jobs: int
    job_id: str
    filename: str
    reason: str | None
    failed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What a tenant did in a time."""

    days: list[DayCount] = field(default_factory=list)
    #: Jobs whose first run completed in the time; seconds from upload to completion, of half and of 95 % of them.
    completed: int = 0
    median_s: float | None = None
    p95_s: float | None = None
    #: Share of the words on which recognizers did not agree, of the time's transcripts; None if nothing was compared.
    disputed_share: float | None = None


#: By what usage is told apart.
By = Literal["day", "job", "provider"]

#: The place behind which a page of usage begins: of, provider, unit.
UsagePlace = tuple[str, str, str]


class Reports(Protocol):
    """Reports to one tenant, which sees only its own rows.

    Raises:
        Unavailable: the database cannot be reached.
        InvalidInput: the text cannot be a tenant's name.
    """

    async def audit(self, tenant: str, job_id: str, *, limit: int, after: int = 0) -> list[AuditRow]:
        """At most `limit` entries of the job's trail, oldest first, those behind the id `after`."""

    async def account_changes(
        self, tenant: str | None, *, limit: int, before: int | None = None, about: About | None = None
    ) -> list[AccountChange]:
        """At most `limit` changes of the tenant's keys, settings, webhooks and voice prints (or of one of these),
        newest first, those before the id `before`. `tenant` None: of operators' keys.
        """

    async def measures(self, tenant: str, job_id: str, run: int) -> Measures:
        """What is known of a run."""

    async def activity(self, tenant: str, since: datetime, until: datetime) -> Activity:
        """What the tenant did from `since` to before `until`."""

    async def failures(self, tenant: str, since: datetime, *, examples: int) -> list[FailedExample]:
        """The newest jobs that failed since then, at most so many of each code, the most frequent code first."""

    async def used(
        self, tenant: str, since: datetime, until: datetime, by: By, *, limit: int, after: UsagePlace | None = None
    ) -> list[UsedUp]:
        """What the tenant used up from `since` to before `until`, in order, at most `limit` rows behind `after`."""
