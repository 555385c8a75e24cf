"""Transcripts: words, hypotheses of recognizers, and the reconciliation. Times are ms from the start of the recording.

Output of recognizers is untrusted. Values that no store accepts (NUL, half an emoji, a confidence of NaN) are cleaned
when a word or a hypothesis is constructed, so that later stages need not check them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from schemas import texts

#: A time beyond this (31 years) is discarded as invalid; not every JSON reader keeps such numbers.
LONGEST_MS = 10**12


def _clean_text(text: str | None) -> str | None:
    return texts.readable(text) or None if text is not None else None


def _clean(target: object, *names: str) -> None:
    """Apply `schemas.texts.readable` to these attributes."""
    for name in names:
        text = getattr(target, name)
        if text is not None and not text.isprintable():
            object.__setattr__(target, name, texts.readable(text))


def _clean_confidence(target: Word | Hypothesis) -> None:
    """Clamp the confidence to 0 to 1; NaN becomes None."""
    value = target.confidence
    if value is not None and not 0 <= value <= 1:
        object.__setattr__(target, "confidence", None if math.isnan(value) else min(1.0, max(0.0, value)))


@dataclass(frozen=True, slots=True)
class Word:
    """One word as a recognizer wrote it, with punctuation and case. None means that the recognizer gives no value."""

    text: str
    start_ms: int | None = None
    end_ms: int | None = None
    #: The recognizer's own confidence, 0 to 1.
    confidence: float | None = None
    speaker: str | None = None
    channel: int | None = None

    def __post_init__(self) -> None:
        if not (self.text.isprintable() and (self.speaker is None or self.speaker.isprintable())):
            _clean(self, "text", "speaker")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            _clean_confidence(self)
        if not -LONGEST_MS < (self.start_ms or 0) < LONGEST_MS:
            object.__setattr__(self, "start_ms", None)
        if not -LONGEST_MS < (self.end_ms or 0) < LONGEST_MS:
            object.__setattr__(self, "end_ms", None)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One recognizer's transcript of one recording."""

    provider: str
    words: tuple[Word, ...]
    #: BCP 47 tag, detected or requested; None if unknown.
    language: str | None = None
    #: Length of the audio that the recognizer processed.
    duration_ms: int | None = None
    #: The recognizer's confidence in the whole transcript, 0 to 1.
    confidence: float | None = None
    model: str | None = None
    #: Other fields of the provider's response that are stored.
    details: dict[str, Any] = field(default_factory=dict)
    #: Whether `language` is the spoken language; False for a recognizer that supports one language only.
    tells_language: bool = True

    def __post_init__(self) -> None:
        _clean(self, "language", "model")
        _clean_confidence(self)
        if not all(word.text for word in self.words):
            object.__setattr__(self, "words", tuple(word for word in self.words if word.text))
        try:
            details = texts.storable_json(self.details)
        except ValueError as exc:
            details = {"left_out": str(exc)}
        object.__setattr__(self, "details", details)


@dataclass(frozen=True, slots=True)
class Reading:
    """The reading of one or more recognizers in a slot of the word network; `text` None means: no word was spoken."""

    #: Made of clean words; cleaned again when it is read from JSON, which an earlier version may have written.
    text: Annotated[str | None, AfterValidator(_clean_text)]
    providers: tuple[str, ...]
    #: Calibrated probability that this reading is right, given all readings.
    probability: float
    start_ms: int | None = None
    end_ms: int | None = None
    #: Highest confidence among its recognizers.
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision for one slot of the network. If the chosen text is None, the transcript has no word there."""

    chosen: Reading
    others: tuple[Reading, ...] = ()
    #: The rule that chose: "unanimous", "calibrated", "single", "redacted", or an adjudicator's name with its prompt
    #: version.
    rule: str = "unanimous"
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality estimates of a transcript, made without a reference transcript."""

    #: Mean calibrated probability of the words in the transcript, 0 to 1; None for an empty one.
    confidence: float | None
    #: Share of slots in which all recognizers agree, 0 to 1.
    agreement: float | None
    disputed_spans_per_1000_words: float
    expected_word_errors: float
    #: By recognizer: confidence, words, coverage (its share of the decided words), agreement with the result.
    recognizers: dict[str, dict[str, float | None]] = field(default_factory=dict)
    #: Share of the disputes of several words whose result is that of no single recognizer; None without such disputes.
    mixed_disputes: float | None = None
    #: Intervals of over 5 s in which only one recognizer has words: (start_ms, end_ms, provider).
    gaps: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class Reconciliation:
    """The reconciled transcript: for every slot the chosen reading and the other readings."""

    decisions: tuple[Decision, ...]
    #: "calibrated", "gemini" (with calibrated) or "single".
    method: str
    quality: Quality
    providers: tuple[str, ...]
    language: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _clean(self, "language")
        object.__setattr__(self, "notes", tuple(map(texts.readable, self.notes)))

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The chosen words in order."""
        return tuple(
            Word(d.chosen.text, d.chosen.start_ms, d.chosen.end_ms, d.chosen.probability, d.speaker)
            for d in self.decisions
            if d.chosen.text is not None
        )

    @cached_property
    def text(self) -> str:
        """The transcript as a line of text."""
        return texts.joined(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class Question:
    """A disputed span as an adjudicator sees it: anonymous readings and the words around them."""

    #: Hex digest of everything that the answer depends on; questions with the same id have the same answer.
    id: str
    before: str
    #: The possible answers, by index. An empty reading: no word was spoken.
    readings: tuple[str, ...]
    after: str


@cache
def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The JSON codec of one of these types: `adapter(Hypothesis).validate_json(data)`, `.dump_json(value)`."""
    return TypeAdapter(kind)
