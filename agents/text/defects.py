"""Leaves out what is no transcript: text that a recognizer repeats again and again, and hypotheses of a few words.

Some recognizers repeat themselves in noise and silence. Over 28 consultations and 28 recognizers, hypotheses with loops
had 23,358 word errors; with each loop reduced to its first repetition, 17,749.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from agents.text.alignment.network import runs

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
#: A hypothesis with less than this share of the words of the longest one is left out, if that has so many words: in
#: less than a minute of speech a few words may be all that one recognizer makes out.
SHORTEST, LONG = 0.1, 100


def without_defects(hypotheses: Sequence[Hypothesis]) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses that are transcripts, without their loops; and a note about each that is changed or left out."""
    kept, notes = _without_loops(hypotheses)
    most = max(len(h.words) for h in kept)
    short = [h for h in kept if most >= LONG and len(h.words) < SHORTEST * most]
    notes += [f"{h.provider} is left out: it has {len(h.words)} words where another has {most}." for h in short]
    return [h for h in kept if h not in short], notes


def _without_loops(hypotheses: Sequence[Hypothesis]) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses with every loop reduced to its first repetition, and a note about each hypothesis with a loop.

    A loop that another hypothesis has, too, was said, and stays.
    """
    names: dict[str, int] = {}
    written = dict.fromkeys(word.text for h in hypotheses for word in h.words)
    number = {text: names.setdefault(_plain(text), len(names)) for text in written}
    keys = [np.array([number[word.text] for word in h.words], dtype=np.int64) for h in hypotheses]
    loops = [_loops(key) for key in keys]
    units = [{_unit(key, loop) for loop in part} for key, part in zip(keys, loops, strict=True)]
    kept, notes = [], []
    for k, (hypothesis, key, part) in enumerate(zip(hypotheses, keys, loops, strict=True)):
        elsewhere = set().union(*(unit for other, unit in enumerate(units) if other != k))
        stay = np.ones(len(key), dtype=bool)
        for first, end, size in part:
            if _unit(key, (first, end, size)) not in elsewhere:
                stay[first + size : end] = False
        if not stay.all():
            words = tuple(word for word, stays in zip(hypothesis.words, stay.tolist(), strict=True) if stays)
            notes.append(f"{hypothesis.provider} repeats itself: {int((~stay).sum())} of its words are left out.")
            hypothesis = replace(hypothesis, words=words)
        kept.append(hypothesis)
    return kept, notes


def _unit(key: Ints, loop: tuple[int, int, int]) -> frozenset[int]:
    first, _, size = loop
    return frozenset(key[first : first + size].tolist())


def _plain(text: str) -> str:
    return text.casefold().strip(".,?!;:-\"'")


def _loops(key: Ints) -> list[tuple[int, int, int]]:
    """(first word, end, words of the unit) of every loop, in order and disjoint; shorter units first."""
    loops: list[tuple[int, int, int]] = []
    free = np.ones(len(key), dtype=bool)
    for size in range(1, min(LONGEST_UNIT, len(key) // 2) + 1):
        least = REPEATED.get(size, SENTENCE_REPEATED)
        same = key[size:] == key[:-size]
        for first, end in runs(same):
            if end - first >= (least - 1) * size and free[first : end + size].all():
                loops.append((first, end + size, size))
                free[first : end + size] = False
    return sorted(loops)
