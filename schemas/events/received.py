"""Transcripts that services outside of Concord send, over HTTP or Kafka."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from schemas.events.base import Data, Language, Share
from schemas.words import Hypothesis, Word

#: Bytes of a transcript, at most: ten hours of speech have 90,000 words.
MAX_BYTES: Final = 16 << 20

Milliseconds = Annotated[int, Field(ge=0, le=360_000_000)]


class ReceivedWord(Data):
    """A word of an outside transcript."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    start_ms: Milliseconds | None = None
    end_ms: Milliseconds | None = None
    confidence: Share | None = None
    speaker: Annotated[str, StringConstraints(max_length=64)] | None = None


class ReceivedWords(Data):
    """An outside transcript: words with their times, or only text."""

    words: list[ReceivedWord] = Field([], max_length=500_000)
    text: str = Field("", description="instead of `words`, where the service tells no times")
    language: Language | None = None
    duration_ms: Milliseconds | None = None
    confidence: Share | None = None
    model: Annotated[str, StringConstraints(max_length=200)] | None = None

    def hypothesis(self, provider: str) -> Hypothesis:
        """The transcript as that of a recognizer."""
        words = [Word(word.text, word.start_ms, word.end_ms, word.confidence, word.speaker) for word in self.words]
        words = words or [Word(text) for text in self.text.split()]
        return Hypothesis(provider, tuple(words), self.language, self.duration_ms, self.confidence, self.model)
