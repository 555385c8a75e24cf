"""The double of deletions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from schemas.ids import Key
from schemas.jobs.deletion import NAME, TERMINAL_TOPICS, Deletion, Scope, begun, counted, farewell
from schemas.jobs.rows import Job
from sinks.memory.leases import MemoryLeases
from sinks.memory.state import JOB
from sinks.ports.upkeep.deletions import Deletions


@dataclass
class MemoryDeletions(MemoryLeases, Deletions):
    """`Deletions` in this process. Tables that no double keeps are not counted."""

    async def begin_deletion(self, key: Key, by: str, scope: Scope = "job") -> Deletion | None:
        """Delete the job's row with what belongs to it, or forget its recording."""
        job, now = self._load(*key), self.clock()
        if job is None or (scope == "files" and not job.ended):
            return None
        requests = [request for request in self._all_requests() if (request.tenant_id, request.job_id) == key]
        deletion = begun(job, requests, scope, by, now)
        size = sum(file.size_bytes for of, file in self.files.items() if of[:2] == key)
        rows = self._erase(deletion)
        if scope == "job":
            self.outbox += [(now, message) for message in farewell(job, deletion, now)]
        else:
            self._jobs[key] = JOB.dump_json(replace(job, original_uri=None))
        what = "deleted" if scope == "job" else "files deleted"
        self._log(job.key, NAME, what)
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
            for row in [row for row in self._usage if row[:2] == deletion.key and row[2] <= deletion.run]:
                usage = replace(self._usage.pop(row), job_id=deletion.id)
                self._usage[usage.tenant_id, usage.job_id, *row[2:]] = usage
        kept = self.deletions[deletion.id]
        receipt = counted(kept.receipt, self._erase(deletion))
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

    def _erase(self, deletion: Deletion) -> dict[str, int]:
        def is_erased(key: tuple[Any, ...]) -> bool:
            return (key[0], key[1]) == deletion.key and key[2] <= deletion.run

        rows = {
            "files": _drop(self.files, filter(is_erased, [*self.files])),
            "provider_requests": _drop(self._requests, filter(is_erased, [*self._requests])),
        }
        self._drop_intents(deletion)
        if deletion.scope == "files":
            return rows
        before = len(self.outbox)
        self.outbox = [
            (due, m)
            for due, m in self.outbox
            if not is_erased((m.tenant_id, m.job_id, m.run or 1)) or m.topic in TERMINAL_TOPICS or m.value is None
        ]
        rows |= {
            "transcripts": _drop(self.transcripts, filter(is_erased, [*self.transcripts])),
            "enrichments": _drop(self.enrichments, filter(is_erased, [*self.enrichments])),
            "summary_items": self._drop_summary_items(deletion),
            "adjudications": _drop(self._adjudications, self._questions_of(deletion)),
            "outbox": before - len(self.outbox),
        }
        job = self._load(*deletion.key)
        if job is not None and job.run <= deletion.run:
            self._forget(job)
            _drop(self.audit, [n for n, row in self.audit.items() if row[0] == job.job_id and row[1] != NAME])
            rows["jobs"] = 1
        return rows

    def _drop_summary_items(self, deletion: Deletion) -> int:
        before = len(self.summary_items)
        self.summary_items = [
            item
            for item in self.summary_items
            if (item.tenant_id, item.job_id) != deletion.key or item.run > deletion.run
        ]
        return before - len(self.summary_items)

    def _questions_of(self, deletion: Deletion) -> list[tuple[str, str]]:
        answers = {key: answer for key, (answer, _) in self._adjudications.items()}
        of_job = {key: one for key, one in answers.items() if (one.tenant_id, one.job_id) == deletion.key}
        return [key for key, answer in of_job.items() if answer.run <= deletion.run]

    def _drop_intents(self, deletion: Deletion) -> None:
        for uri, (key, at) in [*self._intents.items()]:
            if key == deletion.key and at < deletion.requested_at:
                del self._intents[uri]

    def _forget(self, job: Job) -> None:
        del self._jobs[job.key]
        self._metadata.pop(job.key, None)
        if job.reference is not None:
            self._references.pop((job.tenant_id, job.reference), None)


def _drop(rows: dict[Any, Any], keys: Iterable[Any]) -> int:
    dropped = [rows.pop(key) for key in keys]
    return sum(len(row) if isinstance(row, dict) else 1 for row in dropped)
