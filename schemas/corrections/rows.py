"""The database rows of corrections: versions of transcripts, items of the review queue, and what reviewers chose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from schemas.corrections.voices import RenamedSpeaker
from schemas.jobs.rows import Transcript
from schemas.transcript_words import TranscriptWord

#: A decided item is done, by a choice or by an edit of one of its words.
ReviewState = Literal["open", "done", "skipped"]

#: The version of a transcript that its run has made.
FIRST: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptVersion:
    """A version of a run's transcript that a person has made. The run's own, `FIRST`, has no row."""

    tenant_id: str
    job_id: str
    run: int
    version: int
    #: The id of the caller who made it.
    author: str
    reason: str | None
    #: Time of the commit.
    edited_at: datetime | None = None
    #: Words that were added, removed, or written otherwise or by another speaker than in the version before.
    changed_words: int
    word_count: int
    agent_optimized_uri: str
    #: All words, by `dump_words`; empty in a list of versions.
    words: list[Any] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """A disputed span of a run's transcript: what the recognizers heard there, and what a reviewer decided."""

    tenant_id: str
    #: UUID, derived from job, run and span.
    id: str
    job_id: str
    run: int
    start_ms: int | None
    end_ms: int | None
    speaker: str | None
    #: Lowest calibrated probability of the chosen words, 0 to 1.
    probability: float
    #: Expected number of wrong words, by which the queue is ordered.
    doubt: float
    #: Words before and after the span.
    before: str
    after: str
    #: Ids of the words that the span may have, one for each decision of the run.
    slots: list[str]
    #: What was heard there, the choice of the run first: text, providers, and words as [id, text, start_ms, end_ms].
    readings: list[dict[str, Any]] = field(repr=False)
    state: ReviewState = "open"
    assignee: str | None = None
    #: Who has decided or skipped it last, and what: the index of a reading, or a text of the reviewer's own.
    reviewer: str | None = None
    choice: int | None = None
    text: str | None = None
    created_at: datetime | None = None
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewChoice:
    """What one reviewer chose last for an item. With the item's readings it is what a calibration can learn from."""

    tenant_id: str
    item: str
    reviewer: str
    job_id: str
    run: int
    #: Index of the reading; None where the reviewer wrote `text`.
    choice: int | None
    text: str | None = None
    chosen_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptEdit:
    """The rows of an edit; refused unless the transcript is at the version before, in the job's completed run."""

    version: TranscriptVersion
    #: The transcript as it is from now on.
    transcript: Transcript
    #: Ids of words that a person has decided: review items with one of them are done.
    decided: tuple[str, ...] = ()
    #: The choice in the review queue from which the edit follows.
    choice: ReviewChoice | None = None
    #: Speakers that are called otherwise, one after the other.
    renamed: tuple[RenamedSpeaker, ...] = ()


def dump_words(words: Iterable[TranscriptWord]) -> list[Any]:
    """Words as short JSON lists; 15,000 are 1 MB."""
    return [[w.id, w.text, w.start_ms, w.end_ms, w.speaker, w.confidence, w.disputed] for w in words]


def load_words(dumped: Iterable[list[Any]]) -> list[TranscriptWord]:
    """The inverse of `dump_words`."""
    return [TranscriptWord(*values) for values in dumped]
