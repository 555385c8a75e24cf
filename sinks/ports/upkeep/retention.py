"""The ports of what is too old to be kept: rows, and jobs with all that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

#: What is kept for a time of its own.
Kind = Literal["files", "completed", "failed", "conversation_files", "failed_conversations"]


class ExpiresRows(Protocol):
    """Deletes in slices, so that no transaction is long."""

    async def forget(self, table: str, days: float, rows: int) -> int | None:
        """Delete at most so many of the table's oldest rows that are older than `days`; how many they were. None if
        another worker is deleting at the moment. Of `audit_log`, those of a tenant with days of its own are deleted
        after those (`AccountSettings.audit_days`).
        """

    async def count_expired_entries(self, days: float) -> dict[str, int]:
        """How many entries of the audit log that would delete, by tenant that has any."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Days for which a tenant's jobs are kept after their run has ended; None for ever."""

    #: Recordings and all other blobs; the transcript in the database stays.
    files: float | None = None
    completed: float | None = None
    failed: float | None = None
    #: The same of conversations of voice agents: of their files, and of those that have failed.
    conversation_files: float | None = None
    failed_conversations: float | None = None

    @property
    def days(self) -> dict[Kind, float]:
        """The limits that there are, by kind."""
        limits: dict[Kind, float | None] = {kind: getattr(self, kind) for kind in get_args(Kind)}
        return {kind: days for kind, days in limits.items() if days is not None}


class Retentions(Protocol):
    """Which retention each tenant has."""

    async def retention(self, tenant_id: str) -> Retention:
        """The tenant's retention."""


@dataclass(frozen=True, slots=True)
class Expired:
    """What of a tenant is older than its retention."""

    jobs: int
    #: Bytes of the jobs' files.
    size_bytes: int


class ExpiresJobs(Protocol):
    """Finds jobs whose retention is over, by an index of the times at which they ended."""

    async def tenants(self) -> list[str]:
        """Every tenant that has jobs."""

    async def expired_jobs(self, tenant_id: str, kind: Kind, days: float, limit: int) -> list[str]:
        """Ids of at most `limit` of the tenant's jobs that ended more than so many days ago, the oldest first: of
        completed ones, of failed ones, or of all that still have their recording; of conversations, those that have
        failed, or still have files.
        """

    async def count_expired(self, tenant_id: str, kind: Kind, days: float) -> Expired:
        """How many they are, and how large."""
