"""The parts of the fleet that the HTTP service needs, as protocols and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sinks.ports.jobs import Jobs
from sinks.ports.steps import Steps
from sinks.ports.upkeep.deletions import Deletions

if TYPE_CHECKING:
    from schemas.events.job import JobStatus


class Commits(Steps, Jobs, Protocol):
    """The jobs of one tenant, to be read and changed."""


class Writes(Protocol):
    """The database, for what people change over HTTP."""

    def acting_as(self, tenant: str, /) -> Commits:
        """The same database for one tenant: row-level security lets it read and write that tenant's rows only."""


class Deletes(Protocol):
    """The database, for deletions."""

    def acting_as(self, tenant: str, /) -> Deletions:
        """The same database for one tenant."""


class LiveJobs(Protocol):
    """Statuses of jobs, as the table of a `track` worker has them."""

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """This worker's row, which may be behind; None when the job is not in it."""


@dataclass(frozen=True, slots=True)
class Health:
    """The result of a health check: `alive` False means restart the worker, `ready` False means send it no traffic;
    `details` by part.
    """

    alive: bool
    ready: bool
    details: dict[str, str]
