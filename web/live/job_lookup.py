"""Finds the job that a request names, by its id or by its producer's reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.errors import Ambiguous, NotFound
from schemas.ids import EVERY_TENANT, canonical_uuid
from web.problems import NO_JOB

if TYPE_CHECKING:
    from schemas.ids import Key, Whose
    from schemas.jobs.rows import Job
    from sinks.ports.reads import Reads


def job_key(whose: Whose, name: str) -> Key | None:
    """Tenant and id of the named job if the name is its id; None where it may be every tenant's."""
    return None if whose is EVERY_TENANT else (whose, canonical_uuid(name) or name)


async def find_job(reads: Reads, whose: Whose, name: str) -> Job:
    """The row of the job that has this id or reference.

    Raises:
        NotFound: there is none, for this tenant.
        Ambiguous: it may be every tenant's, and several have one.
    """
    jobs = await reads.find(whose, name)
    if not jobs:
        raise NotFound(NO_JOB)
    if len(jobs) > 1:
        raise Ambiguous(name, [job.tenant_id for job in jobs], "?tenant=")
    return jobs[0]
