"""What people ask about corrections, read as their tenant."""

from __future__ import annotations

from typing import Any

from schemas.corrections.rows import ReviewItem, TranscriptVersion
from schemas.ids import Whose
from sinks.ports.corrections.review import ReviewCursor, Reviewer, ReviewFilter, ReviewProgress, ReviewReads
from sinks.ports.corrections.versions import MAX_VERSIONS, Versions
from sinks.postgres.sql.tables import LISTED_VERSIONS, REVIEW_ITEMS, TRANSCRIPT_VERSIONS


class CorrectionReads(Versions, ReviewReads):
    """A part of `sinks.postgres.reader.Reader`."""

    async def read(self, whose: Whose, name: str, *arguments: Any) -> list[Any]:
        """See `Reader`."""
        raise NotImplementedError

    async def versions(self, tenant: str, job_id: str, run: int, limit: int = MAX_VERSIONS) -> list[TranscriptVersion]:
        """Those of a run, newest first."""
        return list(map(LISTED_VERSIONS.read, await self.read(tenant, "read_versions", tenant, job_id, run, limit)))

    async def version(self, tenant: str, job_id: str, run: int, version: int) -> TranscriptVersion | None:
        """One of them, with its words."""
        rows = await self.read(tenant, "read_version", tenant, job_id, run, version)
        return TRANSCRIPT_VERSIONS.read(rows[0]) if rows else None

    async def review_items(
        self, tenant: str, which: ReviewFilter, limit: int, behind: ReviewCursor | None = None
    ) -> list[ReviewItem]:
        """A page of items."""
        doubt, id = (behind.doubt, behind.id) if behind else (None, "")
        filters = (which.assignee, which.job_id)
        rows = await self.read(tenant, "read_review_items", tenant, which.state, doubt, id, limit, *filters)
        return list(map(REVIEW_ITEMS.read, rows))

    async def review_item(self, tenant: str, id: str) -> ReviewItem | None:
        """One item."""
        rows = await self.read(tenant, "read_review_item", tenant, id)
        return REVIEW_ITEMS.read(rows[0]) if rows else None

    async def review_progress(self, tenant: str) -> ReviewProgress:
        """How far the queue is."""
        items = {row["state"]: row for row in await self.read(tenant, "count_review_items", tenant)}
        counts: dict[str, int] = {state: row["items"] for state, row in items.items()}
        reviewers = [Reviewer(**row) for row in await self.read(tenant, "count_reviewers", tenant)]
        [agreement] = await self.read(tenant, "count_agreement", tenant)
        return ReviewProgress(
            open=counts.get("open", 0),
            assigned=items["open"]["assigned"] if "open" in items else 0,
            done=counts.get("done", 0),
            skipped=counts.get("skipped", 0),
            reviewers=reviewers,
            decided_by_several=agreement["items"],
            decided_alike=agreement["alike"],
        )
