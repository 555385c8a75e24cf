"""The status of a job as it is published, and which of two is newer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from schemas.events.job import JobStatus
from schemas.jobs.rows import Job

#: Share of the way that a job in each status has gone.
_SHARE: Final = {
    "uploaded": 0.05,
    "transcribing": 0.1,
    "reconciling": 0.8,
    "persisting": 0.9,
    "completed": 1.0,
    "failed": 1.0,
}


#: For a job that no database has seen yet.
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


#: When a job was created, and its version: what makes one status of a job newer than another. Versions start anew when
#: a job is deleted and its id used again.
StatusVersion = tuple[datetime, int]


def status_version(status: JobStatus) -> StatusVersion:
    """How new a status is."""
    return status.created_at, status.version


def status_of(job: Job) -> JobStatus:
    """The published view of a job's row."""
    share = _SHARE[job.status]
    heard = [s.progress or 0.0 for name, s in job.steps.items() if name.startswith("transcribe.")]
    if job.status == "transcribing" and heard:
        share += 0.7 * sum(heard) / len(heard)
    return JobStatus(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        reference=job.reference,
        run=job.run,
        status=job.status,
        version=job.version,
        filename=job.filename,
        steps=job.steps,
        progress=round(share, 3),
        enrichment=job.enrichment,
        reason=job.reason,
        code=job.code,
        created_at=job.created_at or _NEVER,
        updated_at=job.updated_at or _NEVER,
        completed_at=job.completed_at,
    )
