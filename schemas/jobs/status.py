"""The published status of a job, and the order in which one status is newer than another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from schemas.events.job import JobStatus
from schemas.jobs.rows import Job

#: Progress of a job by status, 0 to 1.
_SHARE: Final = {
    "uploaded": 0.05,
    "transcribing": 0.1,
    "reconciling": 0.8,
    "persisting": 0.9,
    "completed": 1.0,
    "failed": 1.0,
}


#: Timestamp of a job that has not been stored yet.
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


#: (created_at, version) of a job, by which statuses are ordered. The version alone is not enough: it starts at 1 again
#: when a job is deleted and its id is reused.
StatusVersion = tuple[datetime, int]


def status_version(status: JobStatus) -> StatusVersion:
    """The position of a status in the order of the job's statuses."""
    return status.created_at, status.version


def status_of(job: Job) -> JobStatus:
    """The published view of a job's row."""
    share = _SHARE[job.status]
    progresses = [s.progress or 0.0 for name, s in job.steps.items() if name.startswith("transcribe.")]
    if job.status == "transcribing" and progresses:
        share += 0.7 * sum(progresses) / len(progresses)
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
        transcript_version=job.transcript_version,
        reason=job.reason,
        code=job.code,
        not_before=job.not_before,
        created_at=job.created_at or _NEVER,
        updated_at=job.updated_at or _NEVER,
        completed_at=job.completed_at,
    )
