"""The transcripts of a recording's parts, from answers of which any value may be missing or wrong, and how they are
joined.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from schemas.words import LONGEST_MS, Hypothesis, Word


@dataclass(frozen=True, slots=True)
class Part:
    """The transcript of a part of a recording. Times are those of the recording."""

    start_ms: int
    length_ms: int
    words: tuple[Word, ...] = ()
    #: BCP 47; "" if the answer does not contain it.
    language: str = ""
    #: Seconds that the vendor bills; None for silence, which is not sent.
    billed_s: float | None = None


def joined(
    provider: str, parts: Sequence[Part], *, language: str, model: str, tells_language: bool = True
) -> Hypothesis:
    """The transcripts of consecutive parts of a recording as one. `language` is the requested one, or "auto"."""
    words = tuple(word for part in parts for word in part.words)
    billed = [part.billed_s for part in parts if part.billed_s is not None]
    return Hypothesis(
        provider=provider,
        words=words,
        language=_main_language(parts) if language == "auto" else language,
        tells_language=tells_language or language != "auto",
        duration_ms=(parts[-1].start_ms + parts[-1].length_ms or None) if parts else 0,
        confidence=_mean_confidence(words),
        model=model,
        # Each part counts once, even if it was sent again after a lost answer.
        details={"requests": len(billed), "billed_seconds": math.ceil(sum(billed))},
    )


def _main_language(parts: Sequence[Part]) -> str | None:
    """The language of the most words; None if no part has one."""
    languages = Counter(part.language for part in parts for _ in part.words if part.language)
    return languages.most_common(1)[0][0] if languages else None


def _mean_confidence(words: Sequence[Word]) -> float | None:
    confidences = [word.confidence for word in words if word.confidence is not None]
    return round(sum(confidences) / len(confidences), 4) if confidences else None


def in_order(words: Iterable[Word]) -> Iterator[Word]:
    """The words without empty ones; a start before that of the previous word is moved to it."""
    last = 0
    for word in words:
        if not word.text:
            continue
        if word.start_ms is None or word.end_ms is None:
            yield word
            continue
        last = max(last, word.start_ms)
        yield replace(word, start_ms=last, end_ms=max(last, word.end_ms))


#: Characters of a word that are kept.
LONGEST_WORD: Final = 500


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a recording that an answer is about."""

    start_ms: int
    length_ms: int

    def word(
        self,
        text: str,
        start_s: float | None,
        end_s: float | None,
        confidence: float | None,
        speaker: str | None = None,
    ) -> Word:
        """A word at these seconds of the span. A time outside of it is moved to its edge; half a time is none."""
        start_ms, end_ms = (None if s is None else self._time_ms(s) for s in (start_s, end_s))
        if start_ms is None or end_ms is None:
            start_ms = end_ms = None
        else:
            end_ms = max(start_ms, end_ms)
        return Word(text.strip()[:LONGEST_WORD], start_ms, end_ms, confidence, speaker and speaker[:LONGEST_WORD])

    def part(self, words: Iterable[Word], language: str, billed_s: float | None) -> Part:
        """The span's transcript; without a number of billed seconds, whole seconds of its length."""
        length_s = math.ceil(self.length_ms / 1000)
        billed_s = length_s if billed_s is None or not 0 <= billed_s <= length_s + 60 else billed_s
        return Part(self.start_ms, self.length_ms, tuple(in_order(words)), language, billed_s)

    def _time_ms(self, seconds: float) -> int:
        return self.start_ms + round(min(max(seconds, 0.0) * 1000, self.length_ms))


def probability(value: float | None) -> float | None:
    """The value, limited to 0 to 1 and to four digits."""
    return None if value is None else round(min(max(value, 0.0), 1.0), 4)


def probability_of_log(value: float | None) -> float | None:
    """The probability of which this is the natural logarithm; None for a number above 0, which is none."""
    return None if value is None or value > 0 else round(math.exp(max(value, -100.0)), 4)


# -- reading JSON --

#: Objects of one list in an answer that are read: more words than anybody says in a day.
MOST: Final = 500_000

Model = TypeVar("Model", bound=BaseModel)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -LONGEST_MS < value < LONGEST_MS else None  # False for NaN, too


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _objects(value: Any) -> list[Any]:
    return [item for item in value[:MOST] if isinstance(item, dict)] if isinstance(value, list) else []


#: Fields of answers: what is of another type than expected counts as missing, for the rest of the answer is paid for.
Number = Annotated[float | None, BeforeValidator(_number)]
Text = Annotated[str, BeforeValidator(_text)]
Objects = BeforeValidator(_objects)


def read_json(model: type[Model], answer: bytes) -> Model:
    """An answer as a model.

    Raises:
        ValueError: It is no JSON, or an object without a field that has no default. The text has nothing of it.
    """
    try:
        return model.model_validate_json(answer)
    except ValidationError as exc:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['type']}" for e in exc.errors(include_input=False)[:3]
        ]
        raise ValueError("; ".join(problems)) from None
