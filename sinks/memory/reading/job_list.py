"""The double of `sinks.postgres.reading.job_list`: whether a job is one that a list asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from schemas.jobs.rows import Job
    from sinks.ports.reads import JobFilter


def is_wanted(job: Job, wanted: JobFilter, metadata: Mapping[str, Any], language: str | None) -> bool:
    """Whether the job is listed; `metadata` are its own, `language` is that of its newest transcript."""
    spoken = (language or job.language).lower()
    name = (wanted.filename or "").lower()
    return (
        (not wanted.statuses or job.status in wanted.statuses)
        and _is_within(job.created_at, wanted.created_from, wanted.created_to)
        and _is_within(job.completed_at, wanted.completed_from, wanted.completed_to)
        and name in job.filename.lower()
        and wanted.reference in (None, job.reference)
        and (job.reference or "").startswith(wanted.reference_prefix or "")
        and wanted.metadata <= {(key, _text(value)) for key, value in metadata.items()}
        and (wanted.language is None or spoken == wanted.language or spoken.startswith(f"{wanted.language}-"))
    )


def _is_within(at: datetime | None, since: datetime | None, until: datetime | None) -> bool:
    if at is None:
        return since is None and until is None
    return (since is None or at >= since) and (until is None or at < until)


def _text(value: Any) -> str | None:
    """A value of metadata as people write it; None for one that is not looked for."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, bool | int | float) else None
