"""Word error rates against a reference, counted on normalised tokens (`agents.text.normalisation`).

The normaliser's name is part of every score, because rates of different normalisers cannot be compared. Fillers and
punctuation are not counted.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import Levenshtein

from agents.text.normalisation.normalise import is_silent, normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The default normaliser.
NORMALISER = "concord (Whisper's English rules)"


@dataclass(frozen=True, slots=True)
class Score:
    """Numbers of word errors. The sum of several scores is the pooled score."""

    substitutions: int
    insertions: int
    deletions: int
    #: Words in the reference.
    words: int
    normaliser: str = NORMALISER

    @property
    def errors(self) -> int:
        """Errors of all kinds."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """The word error rate; with an empty reference, 0 without insertions and 1 with any."""
        return self.errors / self.words if self.words else float(self.errors > 0)

    def __add__(self, other: Score) -> Score:
        return Score(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.words + other.words,
            self.normaliser,
        )


def words(text: str, language: str | None = None) -> list[str]:
    """The tokens of a text that are scored."""
    return [token for token in normalised(text, language) if not is_silent(token)]


def score(
    reference: str,
    hypothesis: str,
    split: Callable[[str], list[str]] = words,
    normaliser: str = NORMALISER,
) -> Score:
    """Compare a transcript with a reference. `split` makes tokens of both; `normaliser` is its name."""
    ids: dict[str, int] = {}
    true, other = (array("q", [ids.setdefault(t, len(ids)) for t in split(text)]) for text in (reference, hypothesis))
    tags = [op.tag for op in Levenshtein.editops(true, other)]
    return Score(tags.count("replace"), tags.count("insert"), tags.count("delete"), len(true), normaliser)


def pooled(scores: Sequence[Score]) -> Score:
    """The score of several calls together."""
    if not scores:
        return Score(0, 0, 0, 0)
    return sum(scores[1:], start=scores[0])


def interval(scores: Sequence[Score], rounds: int = 1000, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """The bootstrap interval of the pooled rate, drawing whole calls with replacement (Bisani and Ney 2004)."""
    errors, length = (np.array([getattr(s, name) for s in scores], dtype=float) for name in ("errors", "words"))
    return bootstrap(lambda draw: errors[draw].sum() / max(length[draw].sum(), 1.0), len(scores), rounds, seed, level)


def bootstrap(
    figure: Callable[[np.ndarray[tuple[int], np.dtype[np.int64]]], float],
    calls: int,
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The confidence interval of a figure. `figure` computes it from the indexes of calls, drawn with replacement."""
    random = np.random.default_rng(seed)
    values = [figure(random.integers(0, calls, calls)) for _ in range(rounds)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
