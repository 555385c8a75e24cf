"""The new row of a mail with the report on a run, whoever has it sent."""

from __future__ import annotations

from collections.abc import Iterable

from schemas import ids, topics
from schemas.jobs.rows import Job, run_fields
from schemas.mail.addresses import domain_of
from schemas.mail.rows import Mail


def mail_of_report(job: Job, sender: str, recipients: Iterable[str], generation: int) -> Mail:
    """The mail from `sender` with the report on the newest version of the run's transcript. Its Message-ID follows from
    the run and the version, so that a row that is made again is the same mail.
    """
    edited = "" if job.transcript_version == 1 else f"/{job.transcript_version}"
    id = ids.terminal_id(job.tenant_id, job.job_id, job.run, f"{topics.DELIVERED.name}/mail{edited}")
    return Mail(
        **run_fields(job),
        transcript_version=job.transcript_version,
        generation=generation,
        message_id=f"{id}@{domain_of(sender)}",
        waiting=list(recipients),
    )
