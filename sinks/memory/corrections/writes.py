"""The double of what steps and reviewers write: versions of transcripts, and the review queue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from schemas.corrections.rows import ReviewChoice, ReviewItem, TranscriptEdit, TranscriptVersion
from schemas.jobs.rows import AuditEntry, Transcript, run_fields
from schemas.jobs.transitions import Written
from sinks.memory.corrections.voices import MemoryVoicePrints
from sinks.ports.corrections.review import ReviewWrites


@dataclass
class MemoryCorrections(MemoryVoicePrints, ReviewWrites):
    """`ReviewWrites` in this process, and the rows of corrections."""

    versions: dict[tuple[str, str, int, int], TranscriptVersion] = field(default_factory=dict)
    #: By tenant and id.
    review: dict[tuple[str, str], ReviewItem] = field(default_factory=dict)
    #: By tenant, item and reviewer.
    choices: dict[tuple[str, str, str], ReviewChoice] = field(default_factory=dict)

    def _write_corrections(self, written: Written) -> None:
        for item in written.review:
            self.review.setdefault((item.tenant_id, item.id), replace(item, created_at=self.clock()))
        if written.transcript is not None:
            self._drop_earlier_items(written.transcript)
        if written.edit is not None:
            self._write_edit(written.edit)
        self._keep_voices(written.voices)

    def _drop_earlier_items(self, of: Transcript) -> None:
        """A later run is completed: its transcript is the one that is corrected from now on."""
        for key, item in list(self.review.items()):
            is_earlier = (item.tenant_id, item.job_id) == (of.tenant_id, of.job_id) and item.run < of.run
            if is_earlier and item.state == "open":
                del self.review[key]

    def _write_edit(self, edit: TranscriptEdit) -> None:
        version, choice = edit.version, edit.choice
        run = (version.tenant_id, version.job_id, version.run)
        self.versions[(*run, version.version)] = version
        self.transcripts[run] = edit.transcript
        self._rename_voices(edit)
        for item in self._about(run, edit.decided):
            self._decide(item, version.author, None, None)
        if choice is not None:
            self._decide(self.review[choice.tenant_id, choice.item], choice.reviewer, choice.choice, choice.text)
            self.choices[choice.tenant_id, choice.item, choice.reviewer] = choice

    def _about(self, run: tuple[str, str, int], words: Iterable[str]) -> list[ReviewItem]:
        """What is not done about one of these words."""
        decided = set(words)
        items = [item for item in self.review.values() if (item.tenant_id, item.job_id, item.run) == run]
        return [item for item in items if item.state != "done" and decided & set(item.slots)]

    def _decide(self, item: ReviewItem, reviewer: str, choice: int | None, text: str | None) -> None:
        done = {"state": "done", "reviewer": reviewer, "choice": choice, "text": text, "decided_at": self.clock()}
        self.review[item.tenant_id, item.id] = replace(item, **done)  # type: ignore[arg-type]

    async def skip_item(self, tenant: str, id: str, reviewer: str) -> ReviewItem | None:
        """The item as skipped; None if it is done, or there is none."""
        item = self.review.get((tenant, id))
        if item is None or item.state == "done":
            return None
        skipped = replace(item, state="skipped", reviewer=reviewer, decided_at=self.clock())
        return self._changed(skipped, "skipped", reviewer)

    async def assign_item(self, tenant: str, id: str, assignee: str | None, caller: str) -> ReviewItem | None:
        """The item with its new assignee; None if there is no such item."""
        item = self.review.get((tenant, id))
        return None if item is None else self._changed(replace(item, assignee=assignee), "assigned", caller)

    def _changed(self, item: ReviewItem, what: str, author: str) -> ReviewItem:
        self.review[item.tenant_id, item.id] = item
        self._note(AuditEntry(**run_fields(item), step="review", what=what, author=author))
        return item
