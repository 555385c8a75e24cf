"""The port of changes: what is new of a tenant's jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.events.job import JobStatus
from schemas.jobs.status import StatusVersion


@dataclass(frozen=True, slots=True)
class Change:
    """That a job has this version, and since when."""

    job_id: str
    version: StatusVersion
    at: datetime


@dataclass(frozen=True, slots=True)
class ChangesSince:
    """The last change of each job that has changed, oldest first, and the database's time when it was asked."""

    found: list[Change]
    at: datetime


class Changes(Protocol):
    """Questions of one tenant, which sees only its own rows.

    Raises:
        Unavailable: the database cannot be reached.
    """

    async def now(self) -> datetime:
        """The database's time, which changes carry."""

    async def changes(self, tenant: str, since: datetime, limit: int) -> ChangesSince:
        """The last change of each of the tenant's jobs that changed at `since` or later, at most `limit`.

        A change is seen once it is committed: its time may be some seconds ago then.
        """

    async def statuses(self, tenant: str, job_ids: Sequence[str]) -> list[JobStatus]:
        """The statuses of these jobs, by their last change; without those that are not there any more."""
