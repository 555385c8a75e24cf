"""Chooses the most probable reading of each slot of a word network, and records the others beside it."""

from __future__ import annotations

from functools import cached_property
from itertools import zip_longest
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from agents.text.spelling import UNUSUAL, number_writers
from schemas.words import Decision, Reading, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Network
    from agents.text.spelling import Spelling
    from schemas.words import Hypothesis

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def choose(
    network: Network, chance: Floats, preferred: Flags, spelling: Spelling = "recognizer"
) -> tuple[tuple[Decision, ...], Ints, list[int]]:
    """The decisions in order; per slot, the column with the chosen reading; per segment, the index after its decisions.

    `chance` (slots, columns) is the probability that the reading of a column in a slot is right; a `preferred` reading
    is chosen whatever its probability. Words are never cut: if recognizers have different word boundaries, one of them
    is chosen for the whole segment. `spelling` says how numbers are written on which recognizers agree.
    """
    writer = _Writer(network, chance, preferred, spelling)
    segment = network.segment
    first = np.flatnonzero(np.diff(segment, prepend=-1))
    size = np.diff(first, append=len(segment))
    plain = network.plain[first] & (size == 1)
    agreed = plain & network.unanimous[first]
    spans = zip(first.tolist(), size.tolist(), plain.tolist(), agreed.tolist(), strict=True)
    ends = []
    for start, length, simple, undisputed in spans:
        if undisputed:
            writer.agree(start)
        elif simple:
            writer.slot(start)
        else:
            writer.span(start, start + length)
        ends.append(len(writer.decisions))
    return tuple(writer.decisions), np.array(writer.chosen, dtype=np.int64), ends


def best_written(hypothesis: Hypothesis) -> float:
    """How well a transcript is punctuated and capitalised, 0 to 1; 1 from the usual amount of both in written text."""
    words = [word.text for word in hypothesis.words[:: 1 + len(hypothesis.words) // 1000] if word.text]
    if not words:
        return 0.0
    points = sum(text[-1] in ".,?!;:" for text in words) / len(words)
    capitals = sum(text[0].isupper() for text in words) / len(words)
    shouting = sum(map(str.isupper, words)) / len(words) > 0.5
    return 0.0 if shouting else min(points / 0.12, 1) * min(capitals / 0.1, 1)


_CONFIDENCE = attrgetter("confidence")
_SPEAKER = attrgetter("speaker", "channel")


class _Writer:
    """Makes the decisions. Holds the network as plain lists, on which a loop over words is faster than on arrays."""

    def __init__(self, network: Network, chance: Floats, preferred: Flags, spelling: Spelling) -> None:
        self.network = network
        columns = network.columns
        self.decisions: list[Decision] = []
        self.chosen: list[int] = []
        self.names = [column.hypothesis.provider for column in columns]
        self.all_names = tuple(sorted(self.names))
        #: Columns, the best punctuated first.
        self.order = sorted(range(len(columns)), key=lambda k: -best_written(columns[k].hypothesis))
        self.best = self.order[0]
        #: Per slot, the column that writes the number in it; None if there is no number.
        self.writer = number_writers(network, self.order, spelling)
        self.said = [_said(network, k) for k in range(len(columns))]
        # By column, then slot: lists for each slot made the garbage collector take a quarter of this module's time.
        self.grid: list[list[int]] = network.grid.T.tolist()
        self.key: list[list[int]] = network.key.T.tolist()
        self.chance: list[list[float]] = np.round(chance, 4).T.tolist()
        self.preferred: list[list[bool]] = preferred.T.tolist()
        self.rule = "single" if len(columns) == 1 else "unanimous"
        #: Whether any recognizer reports confidences.
        self.graded = any(value is not None for column in columns for value in map(_CONFIDENCE, column.words))
        self.speakers = _slot_speakers(network)

    @cached_property
    def times(self) -> list[tuple[int, int]] | None:
        """The times of each slot; only needed for words without times."""
        return _slot_times(self.network, self.order)

    def _order(self, slot: int) -> list[int]:
        """The columns, the one in whose spelling a slot is written first."""
        writer = self.writer[slot]
        return self.order if writer is None else [writer, *(k for k in self.order if k != writer)]

    def slot(self, slot: int) -> None:
        """Decide one disputed slot in which every recognizer has one whole word, or nothing."""
        groups: dict[int, list[int]] = {}
        for k in self._order(slot):
            groups.setdefault(self.key[k][slot], []).append(k)
        ranked = sorted(groups.values(), key=lambda group: self._rank(group[0], slot))
        readings = []
        for group in ranked:
            cells = [self.said[k][slot] for k in group if self.grid[k][slot] >= 0]
            readings.append(self._reading(cells, self._providers(group), self.chance[group[0]][slot], slot))
        self._write(readings[0], tuple(readings[1:]), "calibrated", slot, [ranked[0][0]])

    def _rank(self, k: int, slot: int) -> tuple[bool, float]:
        """What the readings of a slot are sorted by: a preferred one first, then by probability."""
        return not self.preferred[k][slot], -self.chance[k][slot]

    def agree(self, slot: int) -> None:
        """Keep a unanimous word. Most slots are of this kind, so the usual case avoids `_reading`."""
        chance = self.chance[0][slot]
        best = self.writer[slot]
        if best is None:
            best = self.best
        word = self.said[best][slot]
        if self.graded or word.start_ms is None or word.end_ms is None:
            cells = [self.said[k][slot] for k in self._order(slot)]
            reading = self._reading(cells, self.all_names, chance, slot)
        else:
            reading = Reading(word.text, self.all_names, chance, word.start_ms, word.end_ms)
        self.decisions.append(Decision(reading, (), self.rule, self.speakers[slot] if self.speakers else None))
        self.chosen.append(best)

    def span(self, first: int, end: int) -> None:
        """Decide several slots, or several words in one, for the reading of one recognizer."""
        slots = range(first, end)
        ranked, chances = [], []
        for group in self._span_groups(slots):
            divisions = self._divisions(group, slots)
            ranked += divisions
            # The text is as probable as all its divisions together; another division of it, as its own words.
            chances += [min(self._span_chance(part, slot) for slot in slots) for part in (group, *divisions[1:])]
        texts = [self._span_cells(group, slots) for group in ranked]
        rule = "calibrated" if len(ranked) > 1 else self.rule
        for row, cells in enumerate(zip_longest(*texts, fillvalue=())):
            slot = min(first + row, end - 1)
            chosen, *others = [
                self._reading(words, self._providers(group), chance, slot)
                for group, words, chance in zip(ranked, cells, chances, strict=True)
            ]
            self._write(chosen, tuple(reading for reading in others if reading.text != chosen.text), rule, first, [])
        self.chosen.extend([ranked[0][0]] * len(slots))

    def _span_groups(self, slots: range) -> list[list[int]]:
        """The columns in groups that have the same text in some slots, however divided, the most probable group first.
        In a group, the column without unusual spellings is the first one; then that with the most probable tokens; of
        equal ones, the writer of the number, or the one with fewer words: of "N.K." and "N K", that is the usual one.
        """
        groups: dict[str, list[int]] = {}
        chance = {k: sum(self.chance[k][s] for s in slots) for k in self.order}
        unusual = {}
        writer = self.writer[slots[0]]
        for k in self.order:
            tokens = [self.network.names[self.key[k][s]] for s in slots if self.key[k][s] >= 0]
            unusual[k] = sum(token in UNUSUAL for token in tokens)
            groups.setdefault("".join([UNUSUAL.get(token, token) for token in tokens]), []).append(k)
        for group in groups.values():
            if len(group) > 1:
                words = {k: 0 if k == writer else len(self._span_words(k, slots)) for k in group}
                group.sort(key=lambda k: (unusual[k], -round(chance[k], 4), words[k]))
        return sorted(groups.values(), key=lambda group: self._span_rank(group, slots))

    def _span_rank(self, group: Sequence[int], slots: range) -> tuple[bool, float]:
        """What groups are sorted by: preferred ones first, then by probability."""
        preferred = any(all(self.preferred[k][s] for s in slots) for k in group)
        return not preferred, -sum(self._span_chance(group, s) for s in slots)

    def _divisions(self, group: Sequence[int], slots: range) -> list[list[int]]:
        """The columns of a group by the tokens into which they divide its text: "ice cream" and "icecream"."""
        parts: dict[tuple[int, ...], list[int]] = {}
        for k in group:
            parts.setdefault(tuple(self.key[k][s] for s in slots if self.key[k][s] >= 0), []).append(k)
        return list(parts.values())

    def _span_chance(self, group: Sequence[int], slot: int) -> float:
        """The probability that one of the readings of a group in a slot is right."""
        return min(1.0, sum({self.key[k][slot]: self.chance[k][slot] for k in group}.values()))

    def _span_cells(self, group: Sequence[int], slots: range) -> list[tuple[Word, ...]]:
        """The words of a group's first column in some slots, each with those of columns with the same boundaries."""
        texts = [self._span_words(k, slots) for k in group]
        return list(zip(*(words for words in texts if len(words) == len(texts[0])), strict=True))

    def _span_words(self, k: int, slots: range) -> Sequence[Word]:
        column = self.network.columns[k]
        at = [self.grid[k][s] for s in slots if self.grid[k][s] >= 0]
        return column.words[column.first[at[0]] : column.last[at[-1]] + 1] if at else ()

    def _providers(self, group: Sequence[int]) -> tuple[str, ...]:
        return tuple(sorted([self.names[k] for k in group]))

    def _reading(self, cells: Sequence[Word], providers: tuple[str, ...], chance: float, slot: int) -> Reading:
        """One reading: the text of the first word, and the times of the first that has times, otherwise the slot's."""
        if not cells:
            return Reading(None, providers, chance)
        word = cells[0]
        start, end = word.start_ms, word.end_ms
        if start is None or end is None:
            start, end = self._other_times(cells, slot)
        confidences = [cell.confidence for cell in cells if cell.confidence is not None]
        return Reading(word.text, providers, chance, start, end, max(confidences) if confidences else None)

    def _other_times(self, cells: Sequence[Word], slot: int) -> tuple[int | None, int | None]:
        """Start and end, in ms, of the first word that has both, otherwise of the slot; None if that has none."""
        for cell in cells:
            if cell.start_ms is not None and cell.end_ms is not None:
                return cell.start_ms, cell.end_ms
        return self.times[slot] if self.times else (None, None)

    def _write(
        self, chosen: Reading, others: tuple[Reading, ...], rule: str, slot: int, columns: Iterable[int]
    ) -> None:
        speaker = self.speakers[slot] if self.speakers else None
        self.decisions.append(Decision(chosen, others, rule, speaker))
        self.chosen.extend(columns)


def _said(network: Network, k: int) -> list[Word]:
    """Per slot, the first word of a column's token in it; any word where it has none."""
    words, at = network.columns[k].words, network.grid[:, k]
    return [words[n] for n in network.columns[k].first[at].tolist()] if words else []


def _slot_times(network: Network, order: Sequence[int]) -> list[tuple[int, int]] | None:
    """Start and end of each slot in ms, from recognizers with times, otherwise interpolated; None if none has times."""
    times = np.full((len(network.grid), 2), np.nan)
    for k in reversed(order):
        there = network.grid[:, k] >= 0
        at = network.grid[there, k]
        column = np.stack([network.columns[k].start[at], network.columns[k].end[at]], axis=1)
        times[there] = np.where(np.isnan(column).any(axis=1, keepdims=True), times[there], column)
    timed = np.flatnonzero(~np.isnan(times[:, 0]))
    if not timed.size or timed.size == len(times):
        return None if not timed.size else [(int(a), int(b)) for a, b in times.tolist()]
    slots = np.arange(len(times))
    start, end = (np.interp(slots, timed, times[timed, side]) for side in (0, 1))
    return list(zip(start.astype(int).tolist(), np.maximum(start, end).astype(int).tolist(), strict=True))


def _slot_speakers(network: Network) -> list[str | None] | None:
    """The speaker of each slot, from the recognizer that labels the most words: labels of two cannot be combined."""
    if not _has_speakers(network):
        return None
    labels = [[_speaker(word) for word in column.words] for column in network.columns]
    best = max(range(len(labels)), key=lambda k: (*_labelling(labels[k]), -k))
    first = network.columns[best].first.tolist()
    spoken: list[str | None] = []
    last = next((label for label in labels[best] if label), None)
    for at in network.grid[:, best].tolist():
        if at >= 0:
            last = labels[best][first[at]] or last
        spoken.append(last)
    return spoken


def _has_speakers(network: Network) -> bool:
    return any(label != (None, None) for column in network.columns for label in map(_SPEAKER, column.words))


def _labelling(labels: Sequence[str | None]) -> tuple[bool, int]:
    """Whether a recognizer's labels distinguish speakers, and the number of words with a label."""
    return len(set(labels) - {None}) > 1, sum(label is not None for label in labels)


def _speaker(word: Word) -> str | None:
    """The speaker's label, or the channel in a recording with one speaker on each channel."""
    return word.speaker or (None if word.channel is None else f"channel {word.channel}")
