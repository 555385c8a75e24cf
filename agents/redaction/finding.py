"""What a detector finds in a sequence of words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from agents.redaction.languages.vocabulary import ENGLISH, Vocabulary
from agents.redaction.symbols import OUTER, Symbol, numbered, spelled, symbol


@dataclass(frozen=True, slots=True)
class Finding:
    """Words from `start` to `end` (exclusive) that hold data of this kind: one of the policy's, or an own label."""

    start: int
    end: int
    kind: str
    #: Of findings that overlap, the lowest names the whole.
    rank: int = 9


@dataclass(frozen=True)
class Words:
    """A sequence of words as all detectors read it."""

    texts: Sequence[str]
    #: ISO 3166: where telephone numbers without a prefix belong; and the words of their language.
    region: str = "US"
    vocabulary: Vocabulary = ENGLISH
    #: Whether the transcript distinguishes capitals, so that one says something.
    is_cased: bool = field(init=False)

    def __post_init__(self) -> None:
        capitals = sum(text[:1].isupper() for text in self.texts)
        object.__setattr__(self, "is_cased", 0 < capitals < 0.8 * len(self.texts) or len(self.texts) < 4)

    @cached_property
    def symbols(self) -> list[Symbol]:
        """What each word contributes to numbers and codes."""
        language = self.vocabulary
        read = [symbol(text, language) for text in self.texts]
        return spelled(numbered(read, self.texts, language) if language.numbers else read, language)

    @cached_property
    def plain(self) -> list[str]:
        """The words in lower case, without punctuation."""
        return [one.plain for one in self.symbols]

    def is_capital(self, at: int) -> bool:
        """Whether a word begins with a capital."""
        return self.texts[at].lstrip(OUTER)[:1].isupper()

    def ends_sentence(self, at: int) -> bool:
        """Whether a sentence ends with this word, or it is none of the sequence."""
        return at < 0 or self.texts[at][-1:] in ".?!"


def joined(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in order, those that overlap as one."""
    merged: list[Finding] = []
    for one in sorted(findings, key=lambda each: (each.start, -each.end)):
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            best = min(last, one, key=lambda each: each.rank)
            merged[-1] = replace(best, start=last.start, end=max(last.end, one.end))
        else:
            merged.append(one)
    return merged
