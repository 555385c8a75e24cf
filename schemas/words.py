"""What recognizers heard and what Concord decided: words with times in milliseconds from the start of the recording.

Recognizers are strangers. What one says and no store takes (NUL, half an emoji, a confidence of NaN) is cleaned when a
word or a hypothesis is made, so that no stage after that has to think of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from schemas import texts

#: A time beyond this (31 years) is none, and a number that not every reader of JSON keeps.
LONGEST_MS = 10**12


def _heard(text: str | None) -> str | None:
    return texts.readable(text) or None if text is not None else None


def _clean(of: object, *names: str) -> None:
    """Texts as `schemas.texts.readable`."""
    for name in names:
        text = getattr(of, name)
        if text is not None and not text.isprintable():
            object.__setattr__(of, name, texts.readable(text))


def _clean_share(of: Word | Hypothesis) -> None:
    """A confidence from 0 to 1; None for one that is no number."""
    sure = of.confidence
    if sure is not None and not 0 <= sure <= 1:
        object.__setattr__(of, "confidence", None if math.isnan(sure) else min(1.0, max(0.0, sure)))


@dataclass(frozen=True, slots=True)
class Word:
    """One word as a recognizer wrote it, punctuation and case included. `None` means the recognizer does not say."""

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
            _clean_share(self)
        if not -LONGEST_MS < (self.start_ms or 0) < LONGEST_MS:
            object.__setattr__(self, "start_ms", None)
        if not -LONGEST_MS < (self.end_ms or 0) < LONGEST_MS:
            object.__setattr__(self, "end_ms", None)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One recognizer's transcript of one recording."""

    provider: str
    words: tuple[Word, ...]
    #: BCP 47, detected or asked for; None if unknown.
    language: str | None = None
    #: Length of the audio the recognizer heard.
    duration_ms: int | None = None
    #: The recognizer's confidence in the whole, 0 to 1.
    confidence: float | None = None
    model: str | None = None
    #: Whatever else the provider said that is worth keeping.
    details: dict[str, Any] = field(default_factory=dict)
    #: Whether `language` says what was spoken; False for a recognizer that writes one language only.
    tells_language: bool = True

    def __post_init__(self) -> None:
        _clean(self, "language", "model")
        _clean_share(self)
        if not all(word.text for word in self.words):
            object.__setattr__(self, "words", tuple(word for word in self.words if word.text))
        try:
            details = texts.storable_json(self.details)
        except ValueError as exc:
            details = {"left_out": str(exc)}
        object.__setattr__(self, "details", details)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one or more recognizers heard in a slot of the word network; `text` None means: nothing was said here."""

    #: Of words, and so clean; cleaned again only when it is read from JSON, which an earlier version may have written.
    text: Annotated[str | None, AfterValidator(_heard)]
    providers: tuple[str, ...]
    #: Calibrated probability that this reading is right, given everything heard.
    probability: float
    start_ms: int | None = None
    end_ms: int | None = None
    #: Highest confidence among its recognizers.
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One slot of the network, decided. A chosen reading of None leaves no word in the transcript."""

    chosen: Reading
    others: tuple[Reading, ...] = ()
    #: Which rule chose: "unanimous", "calibrated", "single", or a judge's name with its prompt version.
    rule: str = "unanimous"
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """What can be said of a transcript without a reference."""

    #: Mean calibrated probability of the words in the transcript, 0 to 1; None for an empty one.
    confidence: float | None
    #: Share of slots in which all recognizers agree, 0 to 1.
    agreement: float | None
    disputed_spans_per_1000_words: float
    expected_word_errors: float
    #: Per recognizer: confidence, words, coverage (share of the decided words it heard), agreement with the result.
    recognizers: dict[str, dict[str, float | None]] = field(default_factory=dict)
    #: Stretches of over 5 s in which only one recognizer heard words: (start_ms, end_ms, provider).
    gaps: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class Reconciliation:
    """The reconciled transcript with its apparatus: every slot, what was chosen and what else was heard."""

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
        """The transcript: the chosen words in order."""
        return tuple(
            Word(d.chosen.text, d.chosen.start_ms, d.chosen.end_ms, d.chosen.probability, d.speaker)
            for d in self.decisions
            if d.chosen.text is not None
        )

    @cached_property
    def text(self) -> str:
        """The transcript as a line of text."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class Question:
    """A disputed span as a judge sees it: what was heard, by nobody knows whom, and the words around it."""

    #: Hex digest of everything that the answer depends on; equal questions have equal answers.
    id: str
    before: str
    #: What may be answered, by index. An empty reading: nothing was said here.
    readings: tuple[str, ...]
    after: str


@cache
def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The JSON codec of one of these types: `adapter(Hypothesis).validate_json(data)`, `.dump_json(value)`."""
    return TypeAdapter(kind)
