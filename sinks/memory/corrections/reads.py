"""The double of what people ask about corrections."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schemas.corrections.rows import ReviewChoice, ReviewItem, TranscriptVersion
from schemas.corrections.voices import VoiceSuggestion
from sinks.ports.corrections.review import ReviewCursor, Reviewer, ReviewFilter, ReviewProgress, ReviewReads
from sinks.ports.corrections.versions import MAX_VERSIONS, Versions
from sinks.ports.corrections.voices import VoiceSuggestions

if TYPE_CHECKING:
    from sinks.memory.database import MemoryDatabase


@dataclass(frozen=True)
class CorrectionReads(Versions, ReviewReads, VoiceSuggestions):
    """A part of `sinks.memory.reader.MemoryReader`."""

    database: MemoryDatabase

    async def versions(self, tenant: str, job_id: str, run: int, limit: int = MAX_VERSIONS) -> list[TranscriptVersion]:
        """Those of a run, newest first."""
        rows = [row for key, row in sorted(self.database.versions.items()) if key[:3] == (tenant, job_id, run)]
        return [replace(row, words=[]) for row in rows[::-1][:limit]]

    async def version(self, tenant: str, job_id: str, run: int, version: int) -> TranscriptVersion | None:
        """One of them, with its words."""
        return self.database.versions.get((tenant, job_id, run, version))

    async def voice_suggestions(self, tenant: str, job_id: str, run: int) -> list[VoiceSuggestion]:
        """Names for speakers of a run."""
        return self.database.suggestions_of(tenant, job_id, run)

    async def review_items(
        self, tenant: str, which: ReviewFilter, limit: int, behind: ReviewCursor | None = None
    ) -> list[ReviewItem]:
        """A page of items."""
        items = sorted(
            (item for item in self._of(tenant) if _is_meant(item, which)), key=lambda item: (-item.doubt, item.id)
        )
        if behind is not None:
            items = [item for item in items if (-item.doubt, item.id) > (-behind.doubt, behind.id)]
        return items[:limit]

    async def review_item(self, tenant: str, id: str) -> ReviewItem | None:
        """One item."""
        return self.database.review.get((tenant, id))

    async def review_progress(self, tenant: str) -> ReviewProgress:
        """How far the queue is."""
        items, choices = self._of(tenant), [c for c in self.database.choices.values() if c.tenant_id == tenant]
        states = Counter(item.state for item in items)
        done = Counter(choice.reviewer for choice in choices)
        skipped = Counter(item.reviewer or "" for item in items if item.state == "skipped")
        decided: dict[str, list[ReviewChoice]] = {}
        for choice in choices:
            decided.setdefault(choice.item, []).append(choice)
        several = [{(c.choice, c.text) for c in of_item} for of_item in decided.values() if len(of_item) > 1]
        return ReviewProgress(
            open=states["open"],
            assigned=sum(item.state == "open" and item.assignee is not None for item in items),
            done=states["done"],
            skipped=states["skipped"],
            reviewers=[Reviewer(name, done[name], skipped[name]) for name in sorted(done | skipped)],
            decided_by_several=len(several),
            decided_alike=sum(len(kinds) == 1 for kinds in several),
        )

    def _of(self, tenant: str) -> list[ReviewItem]:
        return [item for item in self.database.review.values() if item.tenant_id == tenant]


def _is_meant(item: ReviewItem, which: ReviewFilter) -> bool:
    return item.state == which.state and which.assignee in (None, item.assignee) and which.job_id in (None, item.job_id)
