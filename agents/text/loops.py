"""Finds text that a recognizer repeats again and again, as some do in noise and silence, and leaves the repetitions out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from schemas.words import Hypothesis

    Ints = NDArray[np.int64]

#: Words of the longest unit of a loop.
LONGEST_UNIT = 30
#: Repetitions from which a unit of so many words is a loop: people say "no" six times, but no sentence three times.
REPEATED = {1: 9, 2: 6, 3: 5, 4: 5, 5: 4}
SENTENCE_REPEATED = 3


def without_loops(hypotheses: Sequence[Hypothesis]) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses with every loop reduced to its first repetition, and a note about each hypothesis with a loop.

    A loop that another hypothesis has, too, was said, and stays.
    """
    names: dict[str, int] = {}
    keys = [
        np.array([names.setdefault(_plain(word.text), len(names)) for word in h.words], dtype=np.int64)
        for h in hypotheses
    ]
    found = [_loops(key) for key in keys]
    units = [{frozenset(key[first : first + size].tolist()) for first, _, size in part} for key, part in zip(keys, found, strict=True)]
    kept, notes = [], []
    for k, (hypothesis, key, part) in enumerate(zip(hypotheses, keys, found, strict=True)):
        elsewhere = set().union(*(unit for other, unit in enumerate(units) if other != k))
        cut = [(f, e, s) for f, e, s in part if frozenset(key[f : f + s].tolist()) not in elsewhere]
        if cut:
            stay = np.ones(len(key), dtype=bool)
            for first, end, size in cut:
                stay[first + size : end] = False
            hypothesis_words = tuple(word for word, keep in zip(hypothesis.words, stay.tolist(), strict=True) if keep)
            notes.append(f"{hypothesis.provider} repeats itself: {int((~stay).sum())} words are left out.")
            hypothesis = replace(hypothesis, words=hypothesis_words)
        kept.append(hypothesis)
    return kept, notes


def _plain(text: str) -> str:
    return text.casefold().strip(".,?!;:-\"'")


def _loops(key: Ints) -> list[tuple[int, int, int]]:
    """(first word, end, words of the unit) of every loop, in order and disjoint; shorter units first."""
    loops: list[tuple[int, int, int]] = []
    free = np.ones(len(key), dtype=bool)
    for size in range(1, min(LONGEST_UNIT, len(key) // 2) + 1):
        least = REPEATED.get(size, SENTENCE_REPEATED)
        same = key[size:] == key[:-size]
        edges = np.flatnonzero(np.diff(same, prepend=False, append=False))
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - first >= (least - 1) * size and free[first : end + size].all():
                loops.append((first, end + size, size))
                free[first : end + size] = False
    return sorted(loops)
