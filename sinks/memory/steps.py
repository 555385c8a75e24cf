"""The double of steps: the rules of `schemas.jobs.transitions` over dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from schemas.errors import Contended
from schemas.ids import Key
from schemas.jobs.deletion import Deletion, late_copies
from schemas.jobs.outcome import Step, audit_entry
from schemas.jobs.rows import Enrichment, Job, ProviderRequest, Transcript, Usage
from schemas.jobs.transitions import Rows, Written, advance
from schemas.mail.rows import Mail
from sinks.memory.corrections.writes import MemoryCorrections
from sinks.memory.jobs import METADATA
from sinks.memory.search.index import MemoryIndex
from sinks.memory.state import JOB, NEVER, ORPHANED, REQUEST, Intent, dump
from sinks.memory.webhooks import MemoryWebhooks
from sinks.ports.steps import Steps

_Results = tuple[Transcript | None, str | None, tuple[Usage, ...]]
_RESULTS: TypeAdapter[_Results] = TypeAdapter(_Results)


@dataclass
class MemorySteps(MemoryIndex, MemoryWebhooks, MemoryCorrections, Steps):
    """`Steps` in this process."""

    async def commit(self, steps: Sequence[Step], *, held: str | None = None) -> list[Written | None]:
        """All steps at once, or none."""
        if held is not None:
            self._keep_held(held)
        before = self._copy() if len(steps) > 1 else {}
        try:
            return [self._commit(step) for step in steps]
        except BaseException:
            vars(self).update(before)
            raise

    def _copy(self) -> dict[str, Any]:
        copies = {name: copy(value) for name, value in vars(self).items() if isinstance(value, dict | set | list)}
        return copies | {"_requests": {run: dict(rows) for run, rows in self._requests.items()}}

    def _commit(self, step: Step) -> Written | None:
        if (step.stage, step.event_id) in self._inbox:
            return None
        key = step.outcome.key
        job = self._load(*key) if key else None
        rows = Rows(
            job,
            self._of_run(*key, job.run) if key and job else {},
            self._namesake(step.outcome.create),
            self._enrichments_of(job) if job else {},
            self._deletion_of(key) if key and job is None else None,
        )
        written = advance(step, rows, self.clock())
        dump(_RESULTS, (written.transcript, step.outcome.error, tuple(written.usage)))
        if rows.job is not None and key:
            self._write_job(key, rows.job, rows.requests)
        if step.outcome.remembered and not written.forgotten:
            self._inbox[step.stage, step.event_id] = self.clock()
        self._write_results(step, written, rows.job)
        if written.too_late and rows.deletion is not None:
            self._resume(rows.deletion, step)
        return written

    def _resume(self, deletion: Deletion, step: Step) -> None:
        copies = deletion.copies + late_copies(step.outcome)
        resumed = replace(deletion, due_at=self.clock(), attempts=deletion.attempts + 1, copies=copies)
        self.deletions[deletion.id] = resumed

    def _enrichments_of(self, job: Job) -> dict[str, Enrichment]:
        run = (job.tenant_id, job.job_id, job.run)
        return {e.kind: e for e in self.enrichments.values() if (e.tenant_id, e.job_id, e.run) == run}

    def _write_job(self, key: Key, job: Job, requests: dict[str, ProviderRequest]) -> None:
        row = dump(JOB, replace(job, metadata=None))
        stored = {provider: dump(REQUEST, request) for provider, request in requests.items()}
        if job.metadata is not None:
            self._metadata[key] = METADATA.dump_json(job.metadata)
        self._jobs[key] = row
        if job.reference is not None:
            self._references[job.tenant_id, job.reference] = key
        self._requests.setdefault((*key, job.run), {}).update(stored)

    def _namesake(self, job: Job | None) -> Job | None:
        key = self._references.get((job.tenant_id, job.reference)) if job and job.reference else None
        return self._load(*key) if job and key and key != job.key else None

    def _write_results(self, step: Step, written: Written, job: Job | None) -> None:
        if (text := written.transcript) is not None:
            run = (text.tenant_id, text.job_id, text.run)
            self.transcripts.setdefault(run, text)
            self.transcribed_at.setdefault(run, self.clock())
        self._write_corrections(written)
        self._write_index(written)
        self.enrichments |= {(e.tenant_id, e.job_id, e.run, e.kind): e for e in written.enrichments}
        self._write_summary(written)
        self._address_mail(written.mail)
        self._keep_usage(written.usage)
        self.files.update({(f.tenant_id, f.job_id, f.run, f.kind): f for f in written.files})
        self._settle_blobs(step, written)
        self.outbox = [(due, m) for due, m in self.outbox if m.id not in written.cancelled]
        self.outbox += [(self.clock() + timedelta(seconds=s), m) for m, s in written.messages]
        self._announce_messages(written.messages)
        if entry := audit_entry(step, job, applied=written.applied):
            self._note(entry)

    def _write_summary(self, written: Written) -> None:
        if (summary := written.summary) is None:
            return
        of_job = [i for i in self.summary_items if (i.tenant_id, i.job_id) == (summary.tenant_id, summary.job_id)]
        kept = [item for item in self.summary_items if item not in of_job or item.run > summary.run]
        now = self.clock()
        self.summary_items = [*kept, *(replace(item, created_at=now) for item in summary.items)]

    def _address_mail(self, mail: Mail | None) -> None:
        if mail is not None:
            key, now = (mail.tenant_id, mail.job_id, mail.run), self.clock()
            before = self.sent_mails.get(key)
            of = before or replace(mail, created_at=now)
            self.sent_mails[key] = replace(mail, attempts=of.attempts, created_at=of.created_at, updated_at=now)

    def _settle_blobs(self, step: Step, written: Written) -> None:
        """The files of a step that was applied are referred to; those of a refused one are orphans at once."""
        for file in step.outcome.files:
            if written.applied:
                self._intents.pop(file.uri, None)
            elif file.uri in self._intents:
                self._intents[file.uri] = self._intents[file.uri]._replace(at=ORPHANED)

    def _keep_held(self, uri: str) -> None:
        held = self._intents.get(uri)
        if held is None or held.at == ORPHANED or (held.lapses_at or NEVER) < self.clock():
            raise Contended("the blob was not stored in time, and is deleted")
        self._intents[uri] = Intent(held.key, self.clock(), NEVER)
