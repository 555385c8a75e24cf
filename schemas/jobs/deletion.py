"""A deletion: what is known of it, how it begins, and which rows it takes or leaves. No I/O.

A deletion begins with one transaction, in which the job's row goes and the deletion's row comes: from then on the job
exists for nobody. What is left is removed in passes, each of which may be repeated, until one that comes after
`settled_at` finds nothing more. The row stays: it is the receipt, and it makes `transitions.advance` refuse whatever
was in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID, uuid5

from schemas import blob_names, ids, topics
from schemas.conversations.names import conversation_of
from schemas.errors import Cancelled
from schemas.events.job import JobFailed
from schemas.ids import Key
from schemas.jobs.outcome import Later, Outcome, Step
from schemas.jobs.published import event_message
from schemas.jobs.rows import AuditEntry, Job, ProviderRequest, run_fields
from schemas.messages import Message, tombstone

#: "job": everything. "files": recordings and other blobs; the rows, with the transcript, stay.
Scope = Literal["job", "files"]

#: The stage's name in the audit log and in `job.failed`.
NAME: Final = "delete"

#: Who asks for a deletion (`requested_by`) when a job's retention is over.
RETENTION: Final = "retention"

#: Seconds after which nothing writes of a deleted job any more: a handler that had begun has ended, or its process was
#: killed and its event was delivered again, and a leased task has lost its lease (`LEASE_S`, 9).
SETTLES_S: Final = 60.0

#: Seconds from there to the last look, for what a process wrote that was stopped and went on.
LAST_LOOK_S: Final = 3600.0

#: Events that leave the outbox although their job is deleted: subscribers see one of them for every run.
TERMINAL_TOPICS: Final = (topics.PERSISTED.name, topics.FAILED.name)

#: Tables of which a deletion of files takes rows. Without its files an answer of a recognizer cannot be used again.
FILE_TABLES: Final = ("files", "issued_urls", "provider_requests", "blob_intents", "voice_prints")

#: Of some of them, which rows go with the files only. A voice that has no name goes with the recording; a voice print
#: that a person has made stays until the job goes, the tenant withdraws its consent, or somebody deletes it.
FILE_CONDITIONS: Final[Mapping[str, str]] = {"voice_prints": "named_at IS NULL"}

#: Tables whose rows of a job go in the first transaction, which a tenant's own role may do.
FIRST_TABLES: Final = (
    *("transcripts", "transcript_versions", "review_items", "review_choices", "files", "issued_urls", "enrichments"),
    *("voice_prints", "summary_items", "chunks", "chunk_vectors", "embedding_work"),
    *("provider_requests", "outbox", "audit_log", "jobs"),
)

#: Tables with the columns `tenant_id` and `job_id` whose rows stay, with the reason as the receipt tells it. Those that
#: lose theirs are in `sinks/postgres/upkeep/deletions.py`.
KEPT: Final[Mapping[str, str]] = {
    "deletions": "this receipt, with the ids of tenant and job",
    "usage": "quantities that were billed, by tenant, recognizer and time; they name the receipt in place of the job",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A deletion's row."""

    id: str
    tenant_id: str
    job_id: str
    #: The last run that is deleted. A new job of the same id begins with the next.
    run: int
    version: int
    scope: Scope = "job"
    requested_by: str
    requested_at: datetime
    #: From when on nothing writes of the job any more.
    settled_at: datetime
    #: When the next pass is due; None after the last one.
    due_at: datetime | None
    attempts: int = 0
    #: When a pass has found that nothing is left.
    done_at: datetime | None = None
    #: Why the last pass could not do all.
    error: str | None = None
    #: What recognizers may have: `provider`, and `id` or `url`.
    copies: list[dict[str, Any]] = field(default_factory=list, repr=False)
    #: Names of its blobs that are not in the job's folder.
    blobs: list[str] = field(default_factory=list)
    #: What went: `rows` by table, `blobs` (of which complete passes have `swept` so many) with `bytes`, copies by
    #: recognizer (`providers`); and `kept`: what stays, why, and until when.
    receipt: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """The job."""
        return self.tenant_id, self.job_id


def begun(job: Job, requests: Iterable[ProviderRequest], scope: Scope, by: str, now: datetime) -> Deletion:
    """The row with which the deletion of a job begins. A job that has rested for a while is settled already."""
    is_resting = job.ended and all(enrichment.state in _ENDED for enrichment in job.enrichment.values())
    still_since = job.updated_at if is_resting and job.updated_at is not None else now
    return Deletion(
        id=deletion_id(job.key, job.run, scope),
        **run_fields(job),
        version=job.version,
        scope=scope,
        requested_by=by,
        requested_at=now,
        settled_at=max(now, still_since + timedelta(seconds=SETTLES_S)),
        due_at=now,
        copies=[copy for request in requests for copy in copies_of(request)],
        blobs=_elsewhere(job),
        receipt={"rows": {}, "blobs": 0, "swept": 0, "bytes": 0, "providers": {}, "kept": []},
    )


_ENDED: Final = ("done", "failed")


def _elsewhere(job: Job) -> list[str]:
    conversation_id = conversation_of(job)
    return [] if conversation_id is None else [*blob_names.of_conversation(job.tenant_id, conversation_id)]


def deletion_id(key: Key, run: int, scope: Scope) -> str:
    """The id of a deletion: repeated, it is the same."""
    return str(uuid5(ids.NAMESPACE, "\x1f".join(["deletion", *key, str(run), scope])))


def copies_of(request: ProviderRequest) -> list[dict[str, Any]]:
    """What a recognizer has of a request, or may have where the answer was lost."""
    is_lost = request.state in ("intended", "parked") or request.abandoned_at is not None
    return _copies(request.provider, request.provider_id, request.audio_url, also=is_lost)


def counted(receipt: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
    """The receipt with these numbers of erased rows, by table, added."""
    sums = Counter(receipt["rows"]) + Counter(rows)
    return {**receipt, "rows": dict(sorted(sums.items()))}


def late_copies(outcome: Outcome) -> list[dict[str, Any]]:
    """What a recognizer has got by a step that came after the deletion."""
    change = outcome.request
    if change is None:
        return []
    return _copies(change.provider, change.columns.get("provider_id"), change.columns.get("audio_url"))


def _copies(provider: str, id: str | None, url: str | None, *, also: bool = False) -> list[dict[str, Any]]:
    """The copy with this id or URL, as a list; none if neither is known, unless there may be one (`also`)."""
    known = {name: value for name, value in (("id", id), ("url", url)) if value is not None}
    return [{"provider": provider, **known}] if known or also else []


def noted(deletion: Deletion) -> AuditEntry:
    """What the audit log keeps of a deletion."""
    what = "deleted" if deletion.scope == "job" else "files deleted"
    return AuditEntry(**run_fields(deletion), step=NAME, what=what, author=deletion.requested_by)


def farewell(job: Job, deletion: Deletion, now: datetime) -> list[Message]:
    """What subscribers are told: the end of a run that has not ended, and that there is no status any more."""
    cause = Step(NAME, ids.ingress_id(*job.key, NAME, str(job.run)), Outcome())
    reason = "the job was deleted"
    failed = JobFailed(**run_fields(job), stage=NAME, code=Cancelled.code, error=reason, attempts=1)
    ended = [] if job.ended else [event_message(cause, Later(topics.FAILED.name, failed), job, now)]
    id = ids.event_id(UUID(deletion.id), NAME, topics.STATUS.name)
    return [*ended, tombstone(topics.STATUS.name, ids.job_key(*job.key), id=id, now=now, of=deletion)]
