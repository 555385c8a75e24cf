"""What the HTTP interface shows of corrections."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from schemas.events.base import Data
from web.conditions.preconditions import etag
from web.resources.jobs.links import link_to

if TYPE_CHECKING:
    from schemas.corrections.rows import ReviewItem, TranscriptVersion
    from schemas.jobs.rows import Transcript
    from schemas.transcript_words import TranscriptWord
    from sinks.ports.corrections.review import Reviewer


class VersionView(Data):
    """A version of a transcript."""

    run: int
    version: int
    author: str | None = Field(description="id of the caller who made it; null: the run")
    reason: str | None
    edited_at: datetime | None = Field(description="null for the run's own version")
    changed_words: int = Field(description="words that were added, removed, or written otherwise or by another speaker")
    words: int | None = Field(description="words that it has; null for the run's own where an edit took its place")
    etag: str


class VersionList(Data):
    """The versions of a run's transcript, newest first."""

    versions: list[VersionView]


class WordView(Data):
    """A word with the id by which it is edited."""

    id: str
    text: str
    start_ms: int | None
    end_ms: int | None
    speaker: str | None
    confidence: float | None
    disputed: bool


class WordList(Data):
    """The words of one version."""

    run: int
    version: int
    words: list[WordView]


class ReadingView(Data):
    """What some recognizers heard."""

    text: str
    providers: list[str]


class ReviewItemView(Data):
    """A disputed span."""

    id: str
    job_id: str
    run: int
    state: str
    start_ms: int | None
    end_ms: int | None
    speaker: str | None
    before: str = Field(description="words before the span")
    after: str = Field(description="words behind it")
    readings: list[ReadingView] = Field(description="what was heard; the first is in the transcript as the run made it")
    probability: float = Field(description="lowest probability of the chosen words, 0 to 1")
    doubt: float = Field(description="expected number of wrong words, by which the queue is ordered")
    words: list[str] = Field(description="ids of the words that the span may have")
    assignee: str | None
    reviewer: str | None = Field(description="who decided or skipped it")
    choice: int | None = Field(description="index of the reading that was chosen")
    text: str | None = Field(description="what the reviewer wrote instead of a reading")
    decided_at: datetime | None
    links: dict[str, str]


class ReviewPage(Data):
    """Some of a tenant's review items, the most doubtful first."""

    items: list[ReviewItemView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class ReviewerView(Data):
    """What one reviewer has done."""

    reviewer: str
    done: int
    skipped: int


class ReviewProgressView(Data):
    """How far the queue is."""

    open: int
    assigned: int = Field(description="of the open ones")
    done: int = Field(description="decided by a reviewer, or by an edit of one of its words")
    skipped: int
    reviewers: list[ReviewerView]
    decided_by_several: int
    decided_alike: int = Field(description="of those, items on which all reviewers agree")
    agreement: float | None = Field(description="their share, 0 to 1; null without any")


def version_view(row: TranscriptVersion) -> VersionView:
    """A version that a person has made."""
    return VersionView(
        run=row.run,
        version=row.version,
        author=row.author,
        reason=row.reason,
        edited_at=row.edited_at,
        changed_words=row.changed_words,
        words=row.word_count,
        etag=etag(row.run, row.version),
    )


def run_version(transcript: Transcript) -> VersionView:
    """The version that the run has made."""
    return VersionView(
        run=transcript.run,
        version=1,
        author=None,
        reason=None,
        edited_at=None,
        changed_words=0,
        words=transcript.words if transcript.version == 1 else None,
        etag=etag(transcript.run, 1),
    )


def word_view(word: TranscriptWord) -> WordView:
    """A word."""
    return WordView.model_construct(
        id=word.id,
        text=word.text,
        start_ms=word.start_ms,
        end_ms=word.end_ms,
        speaker=word.speaker,
        confidence=word.confidence,
        disputed=word.disputed,
    )


def item_view(item: ReviewItem) -> ReviewItemView:
    """An item, with links to what a reviewer can do."""
    names = set(ReviewItemView.model_fields) - {"readings", "words", "links"}
    values: dict[str, Any] = {name: getattr(item, name) for name in names}
    base = f"/tenants/{item.tenant_id}/review/{item.id}"
    link = partial(link_to, item.tenant_id, item.job_id, operator=True)
    links = {name: f"{base}/{name}" for name in ("choice", "skip", "assignee")}
    links |= {"transcript": link("transcript", run=item.run), "audio": link("audio")}
    return ReviewItemView(
        **values,
        readings=[ReadingView(text=r["text"], providers=r["providers"]) for r in item.readings],
        words=item.slots,
        links=links,
    )


def reviewer_view(reviewer: Reviewer) -> ReviewerView:
    """A reviewer."""
    return ReviewerView(reviewer=reviewer.reviewer, done=reviewer.done, skipped=reviewer.skipped)


VERSION_EXAMPLE: Final = {
    "run": 1,
    "version": 2,
    "author": "key_7f3c",
    "reason": "the caller's name",
    "edited_at": "2026-05-01T12:10:00Z",
    "changed_words": 1,
    "words": 1,
    "etag": '"1-2"',
}

WORDS_EXAMPLE: Final = {
    "run": 1,
    "version": 1,
    "words": [
        {
            "id": "w0",
            "text": "Hello.",
            "start_ms": 0,
            "end_ms": 400,
            "speaker": "A",
            "confidence": 0.93,
            "disputed": False,
        }
    ],
}

ITEM_EXAMPLE: Final = {
    "id": "0b2f9d0e-6a47-5f5c-8d6e-4b1f8f0c7a55",
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "run": 1,
    "state": "open",
    "start_ms": 61200,
    "end_ms": 61900,
    "speaker": "A",
    "before": "my name is",
    "after": "and I call about",
    "readings": [
        {"text": "Meyer", "providers": ["whisper-base"]},
        {"text": "Mayor", "providers": ["moonshine-base.en"]},
    ],
    "probability": 0.52,
    "doubt": 0.48,
    "words": ["w118"],
    "assignee": None,
    "reviewer": None,
    "choice": None,
    "text": None,
    "decided_at": None,
    "links": {"choice": "/tenants/acme/review/0b2f9d0e-6a47-5f5c-8d6e-4b1f8f0c7a55/choice"},
}

PROGRESS_EXAMPLE: Final = {
    "open": 12,
    "assigned": 2,
    "done": 30,
    "skipped": 1,
    "reviewers": [{"reviewer": "key_7f3c", "done": 30, "skipped": 1}],
    "decided_by_several": 4,
    "decided_alike": 3,
    "agreement": 0.75,
}
