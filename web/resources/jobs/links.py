"""Links to a job, and to what there is of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from schemas.jobs.rows import TERMINAL

if TYPE_CHECKING:
    from schemas.events.job import JobStatus
    from schemas.jobs.rows import Job


def links_of(job: Job | JobStatus, *, operator: bool) -> dict[str, str]:
    """What else there is of a job, and what can be done with it, by kind. Those for an operator name the tenant."""
    base, query = _base(job.job_id), _tenant(job.tenant_id, operator=operator)
    links = {"self": base + query} | {name: f"{base}/{name}{query}" for name in ("status", "events", "audio")}
    if job.status == "completed" or job.run > 1:
        links |= {"transcript": f"{base}/transcript{query}", "raw": f"{base}/transcript/raw{query}"}
    action = "reprocess" if job.status in TERMINAL else "cancel"
    return links | {action: f"{base}/{action}{query}"}


def link_to(tenant_id: str, job_id: str, part: str = "", *, operator: bool, run: int | None = None) -> str:
    """A job, or a part of it; `run` names one of its runs."""
    query = _tenant(tenant_id, operator=operator)
    if run is not None:
        query += f"{'&' if query else '?'}run={run}"
    return f"{_base(job_id)}{part and '/'}{part}{query}"


def _base(job_id: str) -> str:
    return f"/jobs/{quote(job_id)}"


def _tenant(tenant_id: str, *, operator: bool) -> str:
    return f"?tenant={quote(tenant_id)}" if operator else ""
