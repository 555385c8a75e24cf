"""The ports of the review queue. Choices are written by steps (`Outcome.edit`), since they edit the transcript."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.corrections.rows import ReviewItem, ReviewState


@dataclass(frozen=True, slots=True)
class ReviewCursor:
    """The last item of a page: the next page begins behind it."""

    doubt: float
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFilter:
    """Which items are asked for."""

    state: ReviewState = "open"
    assignee: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reviewer:
    """How many items one reviewer has decided, and has skipped as the last one."""

    reviewer: str
    done: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewProgress:
    """How far a tenant's queue is. An item that was settled by an edit is done, and no reviewer's."""

    open: int
    assigned: int
    done: int
    skipped: int
    reviewers: list[Reviewer]
    #: Items that several reviewers decided, and how many of these all of them decided alike.
    decided_by_several: int
    decided_alike: int


class ReviewReads(Protocol):
    """Questions about one tenant's queue."""

    async def review_items(
        self, tenant: str, which: ReviewFilter, limit: int, behind: ReviewCursor | None = None
    ) -> list[ReviewItem]:
        """At most `limit` items, the most doubtful first, those behind `behind` if it is given."""

    async def review_item(self, tenant: str, id: str) -> ReviewItem | None:
        """One item."""

    async def review_progress(self, tenant: str) -> ReviewProgress:
        """How far the queue is."""


class ReviewWrites(Protocol):
    """Changes of items that do not change a transcript."""

    async def skip_item(self, tenant: str, id: str, reviewer: str) -> ReviewItem | None:
        """The item as skipped; None if it is done, or there is none."""

    async def assign_item(self, tenant: str, id: str, assignee: str | None, caller: str) -> ReviewItem | None:
        """The item with its new assignee, whom `caller` names; None if there is no such item."""
