"""Times of words that a person has added: they share the gap between their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from schemas.transcript_words import TranscriptWord


def with_times(words: Sequence[TranscriptWord]) -> list[TranscriptWord]:
    """The words, with times for those that a person has written and that have none. A recognizer's words without times
    stay without.
    """
    timed: list[TranscriptWord] = []
    position = 0
    for is_open, group in groupby(words, key=_is_open):
        run = list(group)
        position += len(run)
        start = timed[-1].end_ms if timed else 0
        end = words[position].start_ms if position < len(words) else start
        timed += _spread(run, start, end) if is_open else run
    return timed


def _is_open(word: TranscriptWord) -> bool:
    return word.start_ms is None and word.end_ms is None and word.confidence == 1.0


def _spread(words: Sequence[TranscriptWord], start: int | None, end: int | None) -> list[TranscriptWord]:
    """The words one after the other, each as long as its share of the letters."""
    if start is None or end is None:
        return list(words)
    length, letters = max(0, end - start), sum(len(word.text) for word in words)
    spread, before = [], 0
    for word in words:
        first, before = before, before + len(word.text)
        times = start + length * first // letters, start + length * before // letters
        spread.append(replace(word, start_ms=times[0], end_ms=times[1]))
    return spread
