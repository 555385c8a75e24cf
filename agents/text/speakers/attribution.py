"""Decides who says each word of a transcript: from the voices in the recording, and from recognizers' labels.

The words are agreed on before. Each opinion then becomes evidence for each word and speaker, and the most probable
sequence of speakers is found (Viterbi): one speaker goes on within a sentence, and another begins behind it, or after a
pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.text.speakers.labels import MERE, labelled
from schemas.texts import SENTENCE_ENDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.words import Decision, Hypothesis, Reconciliation

    Floats = NDArray[np.floating[Any]]
    Ints = NDArray[np.int64]

#: Evidence of a second of one speaker's voice, and of a recognizer's label for that second.
VOICE, LABEL = 6.0, 9.0
#: Seconds of a word that count, at least and at most: a word that is drawn out is no more certain.
SHORTEST_S, LONGEST_S = 0.15, 0.6
#: What a change of speakers costs: within a sentence, at a pause or a capital letter, and behind a sentence.
WITHIN, AT_PAUSE, BETWEEN = 4.0, 1.0, 0.4
#: Words whose full stop ends no sentence.
TITLES = frozenset({"mr.", "mrs.", "ms.", "dr.", "st.", "prof."})
#: Milliseconds of a pause at which a change is likely.
PAUSE_MS = 250
#: Milliseconds between two recognizers' middles of one word, at most.
NEAR_MS = 1000


@dataclass(frozen=True, slots=True)
class Voices:
    """How much the recording sounds like each of its voices."""

    #: The middles of the intervals that were listened to, in ms, in order.
    times_ms: Ints
    #: (intervals, voices): about 1 for the voice that speaks and 0 for others.
    alike: Floats

    @property
    def is_empty(self) -> bool:
        """Whether nothing was listened to."""
        return not len(self.times_ms)

    @property
    def count(self) -> int:
        """The number of voices."""
        return int(self.alike.shape[1])


def told_speakers(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """The hypotheses whose labels tell speakers apart, those with the most labelled words first."""
    several = [one for one in hypotheses if len({word.speaker for word in one.words} - {None}) > 1]
    return sorted(several, key=lambda one: -sum(word.speaker is not None for word in one.words))


def attributed(decided: Reconciliation, hypotheses: Sequence[Hypothesis], voices: Voices | None) -> Reconciliation:
    """The transcript with a speaker for each word: a letter, in the order of first words, or what a recognizer calls
    the speaker if that is more than a letter or a number.

    `hypotheses` are what it was made of. Without voices, the labels of one recognizer stay as they are, and several
    are made one. Nobody is asked about a transcript without words.
    """
    told = told_speakers(hypotheses)
    if not decided.words or (voices is None and len(told) < 2):
        return decided
    spoken = [n for n, one in enumerate(decided.decisions) if one.chosen.text is not None]
    words = _Words([decided.decisions[n] for n in spoken])
    opinions = [words.labels_of(told[0]), *map(words.by_time, told[1:])] if told else []
    evidence = words.of_voices(voices) if voices is not None else words.of_labels(_numbered(opinions.pop(0)))
    for opinion in opinions:
        evidence = evidence + words.of_labels(_matched(opinion, evidence), evidence.shape[1])
    path = words.path(evidence)
    said = words.of_labels(path.tolist(), evidence.shape[1])
    names = _names(words.by_time(told[0]), said) if told else {}
    speakers = _spread(path, spoken, len(decided.decisions))
    return replace(decided, decisions=labelled(decided.decisions, speakers, names))


class _Words:
    """The words of a transcript, with their times."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = decisions
        self.start, self.end = _times(decisions)
        self.seconds = np.clip((self.end - self.start) / 1000, SHORTEST_S, LONGEST_S)

    def of_voices(self, voices: Voices) -> Floats:
        """(words, voices): the evidence of the sound during each word, or of the nearest that was listened to."""
        times = voices.times_ms
        first, end = np.searchsorted(times, self.start), np.searchsorted(times, self.end, side="right")
        nearest, between = _nearest(times, (self.start + self.end) / 2), end <= first
        first, end = np.where(between, nearest, first), np.where(between, nearest + 1, end)
        sums = np.concatenate([np.zeros((1, voices.count)), np.cumsum(voices.alike, axis=0)])
        mean = (sums[end] - sums[first]) / (end - first)[:, None]
        evidence: Floats = VOICE * self.seconds[:, None] * mean
        return evidence

    def of_labels(self, labels: Sequence[int | None], count: int = 0) -> Floats:
        """(words, speakers): the evidence of a recognizer's labels, by numbers of speakers."""
        count = max(count, 1 + max((label for label in labels if label is not None), default=0))
        evidence = np.zeros((len(labels), count))
        for n, label in enumerate(labels):
            if label is not None:
                evidence[n, label] = LABEL * self.seconds[n]
        return evidence

    def labels_of(self, hypothesis: Hypothesis) -> list[str | None]:
        """The labels of the recognizer that labels the most words: the transcript has them already, by its words."""
        return [one.speaker for one in self.decisions] if self.has_labels else self.by_time(hypothesis)

    @property
    def has_labels(self) -> bool:
        """Whether the decisions have labels."""
        return any(one.speaker is not None for one in self.decisions)

    def by_time(self, hypothesis: Hypothesis) -> list[str | None]:
        """The labels of a recognizer's words at the same times."""
        known = sorted(
            ((word.start_ms + word.end_ms) / 2, word.speaker)
            for word in hypothesis.words
            if word.start_ms is not None and word.end_ms is not None and word.speaker is not None
        )
        if not known:
            return [None] * len(self.decisions)
        times = np.array([time for time, _ in known])
        middles = (self.start + self.end) / 2
        nearest = _nearest(times, middles)
        near = np.abs(times[nearest] - middles) <= NEAR_MS
        return [known[n][1] if is_near else None for n, is_near in zip(nearest.tolist(), near.tolist(), strict=True)]

    def path(self, evidence: Floats) -> Ints:
        """Per word, the speaker in the most probable sequence of speakers."""
        change = self._changes()
        best, back = evidence[0], []
        for row, cost in zip(evidence[1:], change[1:], strict=True):
            other = int(best.argmax())
            switched = best[other] - cost
            back.append(np.where(best >= switched, np.arange(len(best)), other))
            best = np.maximum(best, switched) + row
        path = [int(best.argmax())]
        for step in reversed(back):
            path.append(int(step[path[-1]]))
        return np.array(path[::-1], dtype=np.int64)

    def _changes(self) -> Floats:
        """What a change of speakers costs before each word."""
        texts = [one.chosen.text or "" for one in self.decisions]
        costs = np.full(len(texts), WITHIN)
        for n in range(1, len(texts)):
            capital = texts[n][:1].isupper() and texts[n].split("'")[0] != "I"
            if texts[n - 1].endswith(SENTENCE_ENDS) and texts[n - 1].casefold() not in TITLES:
                costs[n] = BETWEEN
            elif capital or self.start[n] - self.end[n - 1] >= PAUSE_MS:
                costs[n] = AT_PAUSE
        return costs


def _times(decisions: Sequence[Decision]) -> tuple[Floats, Floats]:
    """Start and end of each word in ms; unknown ones lie between their neighbours."""
    index = np.arange(len(decisions))
    starts = np.array([one.chosen.start_ms if one.chosen.start_ms is not None else np.nan for one in decisions])
    ends = np.array([one.chosen.end_ms if one.chosen.end_ms is not None else np.nan for one in decisions])
    known = ~(np.isnan(starts) | np.isnan(ends))
    if not known.any():
        return 300.0 * index, 300.0 * index + 300.0
    start, end = (np.interp(index, index[known], side[known]) for side in (starts, ends))
    return start, np.maximum(start, end)


def _nearest(times: NDArray[Any], wanted: Floats) -> Ints:
    """Per wanted time, the index of the nearest of the sorted `times`."""
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    nearest: Ints = np.where(np.abs(times[before] - wanted) <= np.abs(times[after] - wanted), before, after)
    return nearest


def _numbered(labels: Sequence[str | None]) -> list[int | None]:
    numbers = {label: n for n, label in enumerate(dict.fromkeys(label for label in labels if label is not None))}
    return [None if label is None else numbers[label] for label in labels]


def _matched(labels: Sequence[str | None], evidence: Floats) -> list[int | None]:
    """The labels as numbers of speakers; a label that is left over when all speakers are taken is no opinion."""
    numbers = _matches(labels, evidence)
    return [numbers.get(label) if label is not None else None for label in labels]


def _matches(labels: Sequence[str | None], evidence: Floats) -> dict[str, int]:
    """By label, the number of the speaker for whom its words speak most, one to one."""
    names = sorted({label for label in labels if label is not None})
    contrast = evidence - evidence.mean(axis=1, keepdims=True)
    weight = np.array([contrast[[label == name for label in labels]].sum(axis=0) for name in names])
    numbers: dict[str, int] = {}
    for _ in range(min(weight.shape) if names else 0):
        row, speaker = np.unravel_index(int(weight.argmax()), weight.shape)
        numbers[names[row]] = int(speaker)
        weight[row], weight[:, speaker] = -np.inf, -np.inf
    return numbers


def _names(labels: Sequence[str | None], said: Floats) -> dict[int, str]:
    """By speaker, what a recognizer calls it, unless that is a mere letter or number."""
    return {number: label for label, number in _matches(labels, said).items() if not MERE.fullmatch(label)}


def _spread(path: Ints, spoken: Sequence[int], count: int) -> list[int]:
    """Per decision, the speaker of its word; where there is none, of the word before, or of the first one."""
    at = np.maximum(np.searchsorted(np.array(spoken), np.arange(count), side="right") - 1, 0)
    speakers: list[int] = path[at].tolist()
    return speakers
