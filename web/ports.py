"""The parts of the fleet that the HTTP service needs, as protocols and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.events.audio import AudioUploaded
    from schemas.events.job import JobStatus
    from schemas.jobs.rows import Job


class TakesUploads(Protocol):
    """What makes jobs of recordings; see `agents.stages.uploads.received.ReceivedUploads`."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats that can be uploaded, for error texts."""

    async def known(self, upload: AudioUploaded) -> Job | None:
        """The job that exists already for an upload with this id or reference.

        Raises Conflict if they are two jobs', and UnsupportedOption.
        """

    async def create(self, upload: AudioUploaded, recording: Path, author: str) -> tuple[Job, bool]:
        """Probe and store a recording, and create its job; and whether the job is new. Raises RefusedMedia."""

    async def create_from_store(self, upload: AudioUploaded, author: str) -> tuple[Job, bool]:
        """Create the job of a recording that lies in the store; and whether the job is new.

        Raises Contended if it is kept there no more.
        """


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
