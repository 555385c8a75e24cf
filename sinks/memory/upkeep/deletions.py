"""The double of deletions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import md5
from types import SimpleNamespace
from typing import Any

from schemas.blob_names import UPLOADS
from schemas.ids import Key
from schemas.jobs.deletion import (
    FILE_TABLES,
    FIRST_TABLES,
    NAME,
    TERMINAL_TOPICS,
    Deletion,
    Scope,
    begun,
    counted,
    farewell,
    noted,
)
from schemas.messages import Message
from sinks.memory.conversations.issued_urls import MemoryIssuedUrls
from sinks.memory.corrections.writes import MemoryCorrections
from sinks.memory.leases import MemoryLeases
from sinks.memory.outbox import MemoryOutbox
from sinks.memory.providers.strays import MemoryStrays
from sinks.memory.search.index import MemoryIndex
from sinks.memory.state import JOB
from sinks.memory.upkeep.stuck_jobs import MemoryStuckJobs
from sinks.memory.webhooks import MemoryWebhooks
from sinks.ports.upkeep.deletions import Deletions


@dataclass
class MemoryDeletions(
    MemoryLeases,
    MemoryOutbox,
    MemoryStuckJobs,
    MemoryStrays,
    MemoryIndex,
    MemoryWebhooks,
    MemoryCorrections,
    MemoryIssuedUrls,
    Deletions,
):
    """`Deletions` in this process: it takes the rows that `sinks.postgres.upkeep.deletions` takes."""

    async def begin_deletion(self, key: Key, by: str, scope: Scope = "job") -> Deletion | None:
        """Delete the job's row with what belongs to it, or forget its recording."""
        job, now = self._load(*key), self.clock()
        if job is None or (scope == "files" and not job.ended):
            return None
        requests = [request for request in self._all_requests() if (request.tenant_id, request.job_id) == key]
        deletion = begun(job, requests, scope, by, now)
        size = sum(file.size_bytes for of, file in self.files.items() if of[:2] == key)
        rows = self._erase(deletion, FIRST_TABLES if scope == "job" else FILE_TABLES)
        if scope == "job":
            messages = farewell(job, deletion, now)
            self.outbox += [(now, message) for message in messages]
            self._announce_messages([(message, 0.0) for message in messages])
        else:
            self._jobs[key] = JOB.dump_json(replace(job, original_uri=None))
        self._note(noted(deletion))
        deletion = replace(deletion, receipt=counted(deletion.receipt, rows) | {"bytes": size})
        self.deletions[deletion.id] = deletion
        return deletion

    async def deletion(self, tenant_id: str, job_id: str) -> Deletion | None:
        """The newest deletion of a job with this id."""
        return self._deletion_of((tenant_id, job_id))

    async def due_deletions(self, limit: int, claim_s: float) -> list[Deletion]:
        """Claim deletions whose next pass is due."""
        now = self.clock()
        due = sorted((d.due_at, d.id) for d in self.deletions.values() if d.due_at is not None and d.due_at <= now)
        for _, id in due[:limit]:
            claimed = self.deletions[id]
            until = now + timedelta(seconds=claim_s)
            self.deletions[id] = replace(claimed, due_at=until, attempts=claimed.attempts + 1)
        return [self.deletions[id] for _, id in due[:limit]]

    async def erase_rows(self, deletion: Deletion, hold_s: float) -> Deletion:
        """Delete what rows are left of the deleted runs, and hold the leases of their tasks."""
        if deletion.scope == "job":
            until = self.clock() + timedelta(seconds=hold_s)
            self._leases |= dict.fromkeys(self._leases_of(deletion), ("deletion", until))
            self._detach_usage(deletion)
            self._forget_strays_and_answers(deletion)
        kept = self.deletions[deletion.id]
        receipt = counted(kept.receipt, self._erase(deletion, FILE_TABLES if deletion.scope == "files" else None))
        self.deletions[deletion.id] = replace(kept, receipt=receipt)
        return replace(deletion, receipt=receipt)

    async def put_off_deletion(self, deletion: Deletion, due_at: datetime, error: str) -> None:
        """Store why the pass has failed, and when the next is due."""
        kept = self.deletions[deletion.id]
        if kept.attempts == deletion.attempts:
            self.deletions[deletion.id] = replace(kept, due_at=due_at, error=error)

    async def keep_deletion(self, deletion: Deletion) -> bool:
        """Store what a pass has reached."""
        if self.deletions[deletion.id].attempts != deletion.attempts:
            return False
        self.deletions[deletion.id] = deletion
        if deletion.done_at is not None:
            for key in self._leases_of(deletion):
                self._leases.pop(key)
        return True

    def _leases_of(self, deletion: Deletion) -> list[str]:
        parts = {key: key.split("/") for key in self._leases}
        return [
            key
            for key, (_, *names) in parts.items()
            if names[:2] == [*deletion.key] and names[2].isdigit() and int(names[2]) <= deletion.run
        ]

    def _detach_usage(self, deletion: Deletion) -> None:
        for key in _of_runs(self._usage, deletion):
            usage, at = self._usage.pop(key)
            ref = md5(usage.ref.encode(), usedforsecurity=False).hexdigest()
            detached = replace(usage, job_id=deletion.id, ref=ref)
            self._usage[(usage.tenant_id, deletion.id, *key[2:5], ref)] = detached, at

    def _forget_strays_and_answers(self, deletion: Deletion) -> None:
        tenant, job = deletion.key
        marker = f"concord-{tenant}~{job}~"
        self._strays = {id: one for id, one in self._strays.items() if not (one.marker or "").startswith(marker)}
        places = [place.encode() for place in (f'"{job}"', f'/{job}"', f"/{job}/", f"/{job}?")]
        for key, (known, _) in [*self._idempotency.items()]:
            body = known.answer.body if known.answer else b""
            if key[0] in (tenant, "*") and any(place in body for place in places):
                del self._idempotency[key]

    def _erase(self, deletion: Deletion, tables: Collection[str] | None) -> dict[str, int]:
        """Delete the deletion's rows of these tables, or of all; how many, by table."""
        erased = {}
        for name, (table, keys) in self._erasable(deletion).items():
            if tables is None or name in tables:
                rows = [table.pop(key) for key in keys]
                erased[name] = sum(map(len, rows)) if name == "provider_requests" else len(rows)
        self.transcribed_at = {run: at for run, at in self.transcribed_at.items() if run in self.transcripts}
        self._attempts = {id: made for id, made in self._attempts.items() if id in self._deliveries}
        if tables is None or "outbox" in tables:
            before = len(self.outbox)
            self.outbox = [(due, message) for due, message in self.outbox if not _is_erased(message, deletion)]
            erased["outbox"] = before - len(self.outbox)
        if tables is None or "summary_items" in tables:
            items = len(self.summary_items)
            self.summary_items = [item for item in self.summary_items if not _is_of(item, deletion)]
            erased["summary_items"] = items - len(self.summary_items)
        if tables is None or "jobs" in tables:
            erased["jobs"] = self._forget(deletion)
        return erased

    def _erasable(self, deletion: Deletion) -> dict[str, tuple[dict[Any, Any], list[Any]]]:
        """By name: a table, and the keys of its rows that are deleted."""
        key, before = deletion.key, deletion.requested_at
        of_runs: dict[str, dict[Any, Any]] = {
            "transcripts": self.transcripts,
            "transcript_versions": self.versions,
            "files": self.files,
            "enrichments": self.enrichments,
            "mails": self.sent_mails,
            "provider_requests": self._requests,
            "chunks": self.chunks,
            "chunk_vectors": self.vectors,
            "embedding_work": self.embedding,
        }
        rows: dict[str, tuple[dict[Any, Any], Callable[[Any], bool]]] = {
            "review_items": (self.review, lambda row: _is_of(row, deletion)),
            "review_choices": (self.choices, lambda row: _is_of(row, deletion)),
            "adjudications": (self._adjudications, lambda row: _is_of(row[0], deletion)),
            "issued_urls": (self.issued, lambda row: (row.tenant_id, row.job_id) == key),
            "audit_log": (self.audit, lambda row: _is_of(row[0], deletion) and row[0].step != NAME),
            "outbox_refused": (self._refused, lambda row: _is_of(SimpleNamespace(**row), deletion)),
            "direct_uploads": (self._direct, lambda row: (row[0].tenant_id, row[0].job_id) == key and row[1] < before),
            "webhook_deliveries": (
                self._deliveries,
                lambda row: (row.tenant_id, row.job_id) == key and row.created_at < before,
            ),
        }
        intents = [
            uri
            for uri, intent in self._intents.items()
            if intent.key == key and intent.at < before and f"/{UPLOADS}/" not in uri
        ]
        erasable = {name: (table, _of_runs(table, deletion)) for name, table in of_runs.items()}
        erasable |= {
            name: (table, [id for id, row in table.items() if is_erased(row)])
            for name, (table, is_erased) in rows.items()
        }
        voices = [
            key
            for key in _of_runs(self.speaker_voices, deletion)
            if deletion.scope == "job" or self.speaker_voices[key].named_at is None
        ]
        return erasable | {"blob_intents": (self._intents, intents), "voice_prints": (self.speaker_voices, voices)}

    def _forget(self, deletion: Deletion) -> int:
        job = self._load(*deletion.key)
        if job is None or job.run > deletion.run:
            return 0
        del self._jobs[job.key]
        self._metadata.pop(job.key, None)
        self._revivals.pop(job.key, None)
        if job.reference is not None:
            self._references.pop((job.tenant_id, job.reference), None)
        return 1


def _of_runs(table: Iterable[Any], deletion: Deletion) -> list[Any]:
    """Of keys that begin with tenant, job and run: those of deleted runs."""
    return [key for key in table if (key[0], key[1]) == deletion.key and key[2] <= deletion.run]


def _is_of(row: Any, deletion: Deletion) -> bool:
    """Whether this is about a deleted run; without a run, it is about the first."""
    return (row.tenant_id, row.job_id) == deletion.key and (row.run or 1) <= deletion.run


def _is_erased(message: Message, deletion: Deletion) -> bool:
    """Whether an event in the outbox is not published any more; one without a value deletes the job's status."""
    return _is_of(message, deletion) and message.value is not None and message.topic not in TERMINAL_TOPICS
