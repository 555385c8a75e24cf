"""Groups a transcript's words to segments for readers and prompts: by speaker, and at pauses and ends of sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

from schemas.texts import SENTENCE_ENDS, joined

#: Milliseconds of a pause that ends a segment, and words of a segment from which the next end of a sentence ends it.
PAUSE_MS, MANY_WORDS = 1200, 40


class Timed(Protocol):
    """What was said at some time."""

    @property
    def start_ms(self) -> int | None: ...

    @property
    def end_ms(self) -> int | None: ...


class Spoken(Timed, Protocol):
    """A word of a transcript: `schemas.words.Word`, or `schemas.transcript_words.TranscriptWord`."""

    @property
    def text(self) -> str: ...

    @property
    def confidence(self) -> float | None: ...

    @property
    def speaker(self) -> str | None: ...


W = TypeVar("W", bound=Spoken)


def segments(words: Sequence[Spoken]) -> list[dict[str, Any]]:
    """[{start_ms, end_ms, speaker, text, confidence}], in order. A confidence is the mean of the words' confidences."""
    return [_segment(group) for group in groups(words)]


def span_ms(said: Sequence[Timed]) -> tuple[int | None, int | None]:
    """When this begins and ends, as far as its times are known."""
    start_ms = next((one.start_ms for one in said if one.start_ms is not None), None)
    return start_ms, next((one.end_ms for one in reversed(said) if one.end_ms is not None), None)


def speakers(words: Sequence[Spoken]) -> list[str]:
    """The speakers' labels, in order of their first words."""
    return list(dict.fromkeys(word.speaker for word in words if word.speaker is not None))


def groups(words: Sequence[W]) -> Iterator[list[W]]:
    """The words of each segment, in order."""
    group: list[W] = []
    for word in words:
        if group and _ends(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _ends(group: Sequence[Spoken], following: Spoken) -> bool:
    last = group[-1]
    if following.speaker != last.speaker:
        return True
    if last.end_ms is not None and following.start_ms is not None and following.start_ms - last.end_ms > PAUSE_MS:
        return True
    return len(group) >= MANY_WORDS and last.text.endswith(SENTENCE_ENDS)


def _segment(group: Sequence[Spoken]) -> dict[str, Any]:
    start_ms, end_ms = span_ms(group)
    confidences = [word.confidence for word in group if word.confidence is not None]
    return {
        "start_ms": start_ms,
        "end_ms": end_ms,
        "speaker": group[0].speaker,
        "text": joined(word.text for word in group),
        "confidence": round(sum(confidences) / len(confidences), 4) if confidences else None,
    }
