"""What the resources of corrections need of the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sinks.ports.corrections.review import ReviewReads
from sinks.ports.corrections.versions import Versions
from sinks.ports.reads import Reads

if TYPE_CHECKING:
    from schemas.corrections.changes import TranscriptPatch, WholeTranscript
    from schemas.corrections.rows import ReviewItem, TranscriptVersion
    from schemas.jobs.rows import Transcript
    from schemas.transcript_words import TranscriptWord


class CorrectionReads(Reads, Versions, ReviewReads, Protocol):
    """What is read: jobs, transcripts with their versions, the review queue."""


class Editor(Protocol):
    """Makes new versions of transcripts. `transcript` is the version that was edited.

    Raises:
        RefusedChange: a change does not fit the transcript.
        OutOfDate: the transcript has another version by now.
        NotFound: its words are not in the store any more.
    """

    async def words(self, transcript: Transcript, version: int | None = None) -> list[TranscriptWord]:
        """The words of a version of this run's transcript, by default of the one that `transcript` is."""

    async def patch(self, transcript: Transcript, patch: TranscriptPatch, author: str) -> TranscriptVersion:
        """Change single words and speakers."""

    async def rewrite(self, transcript: Transcript, whole: WholeTranscript, author: str) -> TranscriptVersion:
        """Replace the whole text."""

    async def choose(
        self, transcript: Transcript, item: ReviewItem, choice: int | str, reviewer: str
    ) -> TranscriptVersion:
        """Have a disputed span read as a reviewer chose: a reading's index, or a text of their own."""
