"""The state machine of enrichments: documents and reports that are created after a run has completed. No I/O.

An enrichment is a row per (tenant, job, run, kind). The step that completes the run creates it as `pending`; it ends as
`done` or `failed`. An ended one does not change again, except a failed one that an operator restarts, all of them
when a person edits the transcript, and those that a schedule asks for: they begin again, with the transcript's newest
version. Enrichments never change the run.
`schemas.jobs.transitions.advance` applies these rules to locked rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from schemas.conversations.names import conversation_of
from schemas.events.job import EnrichmentStatus
from schemas.jobs.outcome import EnrichmentChange
from schemas.jobs.rows import Enrichment, Job
from schemas.texts import ERROR_CHARS, readable

#: By kind, the kinds that it is made from: while one of them is not done nor failed in the same run, it waits.
AFTER: Final[Mapping[str, tuple[str, ...]]] = {"report": ("summary",), "mail": ("report",)}

#: What is made of every conversation of a voice agent, whatever is made of recordings.
OF_CONVERSATIONS: Final = ("summary", "report", "mail")

#: Error code of an enrichment that had not ended when the next run of its job began.
SUPERSEDED: Final = "superseded"


def wanted(kinds: Iterable[str], job: Job) -> tuple[str, ...]:
    """Those of an installation's kinds that are made of this job's transcript, and of a conversation's all that is made
    of those. Mail needs recipients.
    """
    if job.options.get("enrich") is False:
        return ()
    kinds = dict.fromkeys((*kinds, *(() if conversation_of(job) is None else OF_CONVERSATIONS)))
    return tuple(kind for kind in kinds if kind != "mail" or job.options.get("mail_to"))


def is_waiting(kind: str, states: Mapping[str, EnrichmentStatus]) -> bool:
    """Whether an enrichment of this kind has to wait for another of its run."""
    return any(kind in states and states[kind].state not in ("done", "failed") for kind in AFTER.get(kind, ()))


def begun(job: Job, kinds: Iterable[str], now: datetime) -> dict[str, Enrichment]:
    """The new rows of a completed run's enrichments, by kind."""
    return {
        kind: Enrichment(
            tenant_id=job.tenant_id, job_id=job.job_id, run=job.run, kind=kind, created_at=now, updated_at=now
        )
        for kind in kinds
    }


def is_allowed(change: EnrichmentChange, job: Job, rows: Mapping[str, Enrichment]) -> bool:
    """Whether the change may be applied to the rows of the job's current run."""
    row = rows.get(change.kind)
    if change.begins:
        return _may_begin(change, job, row)
    if row is None or job.run != change.run or row.transcript_version != change.transcript_version:
        return False
    if row.generation != change.generation:
        return False
    return not row.ended or (change.reopens and row.state == "failed")


def _may_begin(change: EnrichmentChange, job: Job, row: Enrichment | None) -> bool:
    """Whether it may be begun again, or for the first time unless its upload wanted none. What has been edited, or
    begun by somebody else, since it was read is left to them.
    """
    is_newest = job.run == change.run and job.transcript_version == change.transcript_version
    if job.status != "completed" or not is_newest:
        return False
    if row is None:
        return change.generation == 1 and job.options.get("enrich") is not False
    return row.ended and row.generation + 1 == change.generation


def changed(row: Enrichment, change: EnrichmentChange, now: datetime) -> Enrichment:
    """The row after an allowed change."""
    ended = change.state in ("done", "failed")
    return replace(
        row,
        state=change.state,
        attempts=max(change.attempts, row.attempts),
        error=None if change.error is None else readable(change.error, ERROR_CHARS),
        code=change.code,
        version=change.version or row.version,
        result=change.result if ended else row.result,
        updated_at=now,
        finished_at=now if ended else None,
    )


def begun_again(row: Enrichment | None, job: Job, kind: str, now: datetime) -> Enrichment:
    """The row of an enrichment that is to be made again, of the transcript's version; a new one if it never was."""
    if row is None:
        new = begun(job, [kind], now)[kind]
        return replace(new, transcript_version=job.transcript_version)
    return replace(row, generation=row.generation + 1, updated_at=now, **_AGAIN)


#: What of a row begins anew. Its result stays until there is another.
_AGAIN: Final[Mapping[str, Any]] = {
    "state": "pending",
    "attempts": 0,
    "error": None,
    "code": None,
    "finished_at": None,
}


def reopened(rows: Mapping[str, Enrichment], transcript_version: int, now: datetime) -> list[Enrichment]:
    """The rows after an edit of the transcript: each is to be made again, of its new version."""
    again = {**_AGAIN, "transcript_version": transcript_version, "generation": 1}
    return [replace(row, updated_at=now, **again) for _, row in sorted(rows.items())]


def superseded(rows: Mapping[str, Enrichment], now: datetime) -> list[Enrichment]:
    """The rows that have not ended, as failed because the job's next run begins."""
    error = "the job's next run has begun"
    return [
        replace(row, state="failed", code=SUPERSEDED, error=error, updated_at=now, finished_at=now)
        for row in rows.values()
        if not row.ended
    ]


def statuses(rows: Mapping[str, Enrichment]) -> dict[str, EnrichmentStatus]:
    """The published view of the rows, by kind."""
    return {
        kind: EnrichmentStatus(
            state=row.state,
            attempts=row.attempts,
            error=row.error,
            code=row.code,
            version=row.version,
            transcript_version=row.transcript_version,
            generation=row.generation,
            started_at=row.created_at,
            finished_at=row.finished_at,
        )
        for kind, row in sorted(rows.items())
    }
