"""Transcripts that services outside of Concord send, over HTTP or Kafka."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, model_validator

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

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start_ms is not None and self.end_ms is not None and self.end_ms < self.start_ms:
            raise ValueError("end_ms is before start_ms")
        return self


class ReceivedWords(Data):
    """An outside transcript: words with their times, or only text."""

    words: list[ReceivedWord] = Field([], max_length=500_000)
    text: str = Field("", description="instead of `words`, where the service tells no times")
    language: Language | None = None
    duration_ms: Milliseconds | None = None
    confidence: Share | None = None
    model: Annotated[str, StringConstraints(max_length=200)] | None = None

    def hypothesis(self, provider: str) -> Hypothesis:
        """The transcript as that of a recognizer: its words in the order of time, if all have one."""
        words = [Word(word.text, word.start_ms, word.end_ms, word.confidence, word.speaker) for word in self.words]
        starts = [word.start_ms for word in words if word.start_ms is not None]
        if len(starts) == len(words):
            words = [word for _, word in sorted(zip(starts, words, strict=True), key=lambda timed: timed[0])]
        words = words or [Word(text) for text in self.text.split()]
        return Hypothesis(provider, tuple(words), self.language, self.duration_ms, self.confidence, self.model)
