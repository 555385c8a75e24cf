"""Selects the intervals of a recording that one more recognizer should transcribe, and applies its hypotheses.

They change only disputed words, and only to words that one of the recognizers offers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agents.text.adjudicate import requalified
from agents.text.alignment.network import runs
from agents.text.reconcile import compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agents.text.alignment.network import Network
    from agents.text.reconcile import Compared
    from schemas.words import Decision, Hypothesis, Reconciliation

#: Milliseconds of audio on both sides of a dispute: a recognizer needs some words before and after the disputed ones.
CONTEXT_MS = 1500


@dataclass(frozen=True, slots=True)
class Dispute:
    """Consecutive segments of the network that are not unanimous, between two that are."""

    #: Indexes of the first segment and of the one after the last.
    first: int
    end: int
    start_ms: int
    end_ms: int
    #: Expected number of wrong words.
    doubt: float


@dataclass(frozen=True, slots=True)
class DisputedInterval:
    """A part of the recording with disputes."""

    start_ms: int
    end_ms: int
    disputes: tuple[Dispute, ...]

    @property
    def length_ms(self) -> int:
        """Its duration."""
        return self.end_ms - self.start_ms


def disputes(compared: Compared) -> tuple[list[Dispute], int]:
    """The disputes with known times, in order; and the number of disputes without.

    Differences only in fillers and punctuation are no disputes.
    """
    slots = _slots(compared.network)
    timed: list[Dispute] = []
    without_time = 0
    for first, end in _disputed_runs(compared.network, slots):
        if not _differ_in_words(compared.network, slots[first], slots[end]):
            continue
        times = _times_of(compared.network, slots, first, end)
        if times is None:
            without_time += 1
            continue
        doubt = sum(1 - decision.chosen.probability for decision in _decisions(compared, first, end))
        timed.append(Dispute(first, end, *times, doubt))
    return timed, without_time


def disputed_intervals(disputes: Iterable[Dispute], limit_ms: int) -> list[DisputedInterval]:
    """The intervals to transcribe, in order: those with the most expected errors per second, `limit_ms` long in all."""
    selected: list[Dispute] = []
    for dispute in sorted(disputes, key=lambda d: (-d.doubt / (d.end_ms - d.start_ms + 2 * CONTEXT_MS), d.first)):
        if sum(interval.length_ms for interval in _merged([*selected, dispute])) <= limit_ms:
            selected.append(dispute)
    return _merged(selected)


def settled(compared: Compared, hypotheses: Mapping[DisputedInterval, Hypothesis]) -> Reconciliation:
    """The reconciliation after one more recognizer has transcribed some intervals, with times of the recording.

    Each interval is decided by itself. Only disputed words are decided again: unanimous words stay, and so does a
    dispute if the new words cannot be aligned with the unanimous words around it. A hypothesis without words is
    ignored: the others agree on some words in every interval, so it must be wrong.
    """
    hypotheses = {interval: hypothesis for interval, hypothesis in hypotheses.items() if hypothesis.words}
    decisions = list(compared.decided.decisions)
    won: Counter[str] = Counter()
    for interval in sorted(hypotheses, key=lambda i: i.start_ms, reverse=True):
        redecided = _Redecided(compared, interval, hypotheses[interval])
        for dispute in reversed(interval.disputes):
            new = redecided.decisions(dispute)
            if new is not None:
                at = slice(*_span(compared, dispute.first, dispute.end))
                won.subtract(_chosen_providers(decisions[at]))
                won.update(_chosen_providers(new))
                decisions[at] = _with_speakers(new, decisions[at])
    return _with(compared.decided, decisions, won, list(hypotheses.values()))


def _chosen_providers(decisions: Iterable[Decision]) -> Iterator[str]:
    return (name for decision in decisions for name in decision.chosen.providers)


def _with_speakers(new: Sequence[Decision], old: Sequence[Decision]) -> list[Decision]:
    """The new decisions with the speakers of those that they replace, word by word."""
    return [replace(decision, speaker=old[min(n, len(old) - 1)].speaker) for n, decision in enumerate(new)]


def _with(
    decided: Reconciliation, decisions: Sequence[Decision], won: Counter[str], hypotheses: Sequence[Hypothesis]
) -> Reconciliation:
    """The reconciliation with these decisions, and with the new recognizer's figures."""
    if not hypotheses:
        return decided
    words = [word for hypothesis in hypotheses for word in hypothesis.words]
    confidences = [word.confidence for word in words if word.confidence is not None]
    # It transcribed the most doubtful intervals only, so shares of the whole recording would be meaningless.
    figures = {
        "confidence": round(sum(confidences) / len(confidences), 4) if confidences else None,
        "words": float(len(words)),
        "coverage": None,
        "agreement": None,
    }
    quality = requalified(decided.quality, decisions, won)
    provider = hypotheses[0].provider
    return replace(
        decided,
        decisions=tuple(decisions),
        quality=replace(quality, recognizers=quality.recognizers | {provider: figures}),
        providers=tuple(sorted({*decided.providers, provider})),
    )


class _Redecided:
    """One interval, reconciled again together with the new recognizer's hypothesis."""

    def __init__(self, compared: Compared, interval: DisputedInterval, third: Hypothesis) -> None:
        network = compared.network
        self.names = [column.hypothesis.provider for column in network.columns]
        #: Borders between the network's segments; see `_borders`.
        self.before = _borders(network, self.names)
        first, end = _around(network, _slots(network), interval)
        begin, stop = self.before[first], self.before[end]
        parts = [
            replace(column.hypothesis, words=column.words[begin[k] : stop[k]])
            for k, column in enumerate(network.columns)
        ]
        # The language stays that of the first reconciliation, so that words give the same tokens.
        language = compared.decided.language
        hypotheses = [replace(hypothesis, language=language) for hypothesis in (*parts, third)]
        self.compared = compare(hypotheses, compared.calibration, compared.spelling)
        #: Borders between the segments of the new network, counted as in `before`.
        self.after = [
            tuple(a + b for a, b in zip(border, begin, strict=True))
            for border in _borders(self.compared.network, self.names)
        ]

    def decisions(self, dispute: Dispute) -> Sequence[Decision] | None:
        """The decisions that replace those of the dispute and cover the same words of the other recognizers; None if
        segments of the new network do not begin and end with these words.
        """
        begin, end = self.before[dispute.first], self.before[dispute.end]
        if begin not in self.after or end not in self.after:
            return None
        # Words of the new recognizer alone, between the dispute and the unanimous words, belong to the dispute.
        return _decisions(self.compared, self.after.index(begin), len(self.after) - 1 - self.after[::-1].index(end))


def _borders(network: Network, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Before each segment, and at the end: the number of preceding words of each of these recognizers."""
    columns = {column.hypothesis.provider: (k, column) for k, column in enumerate(network.columns)}
    counts = np.zeros((len(network.grid) + 1, len(names)), dtype=np.int64)
    for n, (k, column) in enumerate(columns[name] for name in names):
        there = np.flatnonzero(network.grid[:, k] >= 0)
        counts[there + 1, n] = column.last[network.grid[there, k]] + 1
    return list(map(tuple, np.maximum.accumulate(counts)[_slots(network)].tolist()))


def _slots(network: Network) -> list[int]:
    """The first slot of each segment, and at the end the number of slots."""
    return [*np.flatnonzero(np.diff(network.segment, prepend=-1)).tolist(), len(network.grid)]


def _disputed_runs(network: Network, slots: Sequence[int]) -> list[tuple[int, int]]:
    """First and end (exclusive) of every run of segments that are not unanimous."""
    agreed = np.logical_and.reduceat(network.unanimous, slots[:-1]) if len(slots) > 1 else np.zeros(0, dtype=bool)
    return runs(~agreed)


def _differ_in_words(network: Network, begin: int, end: int) -> bool:
    """Whether recognizers differ in these slots in words, and not in fillers only."""
    columns = network.key[begin:end].T
    return len({tuple(k for k in keys if k >= 0 and not network.silent[k]) for keys in columns.tolist()}) > 1


def _times_of(network: Network, slots: Sequence[int], first: int, end: int) -> tuple[int, int] | None:
    """Start and end of some segments in ms, from recognizers with times; without, the time between their neighbours.
    None if that is unknown, too.
    """
    inside = _times(network, slots[first], slots[end])
    if inside is not None:
        return inside
    before = _times(network, slots[first - 1], slots[first]) if first else (0, 0)
    after = _times(network, slots[end], slots[end + 1]) if end < len(slots) - 1 else None
    return None if before is None or after is None else (before[1], max(before[1], after[0]))


def _times(network: Network, slot: int, after: int) -> tuple[int, int] | None:
    """Start of the first and end of the last word in some slots, in ms; None if no recognizer has times there."""
    starts, ends = [], []
    for k, column in enumerate(network.columns):
        at = network.grid[slot:after, k]
        starts.append(column.start[at[at >= 0]])
        ends.append(column.end[at[at >= 0]])
    start, stop = np.concatenate(starts), np.concatenate(ends)
    if np.isnan(start).all() or np.isnan(stop).all():
        return None
    begin, end = int(np.nanmin(start)), int(np.nanmax(stop))
    return begin, max(begin, end)


def _merged(disputes: Iterable[Dispute]) -> list[DisputedInterval]:
    """The intervals of disputes with their context; overlapping ones are joined."""
    merged: list[DisputedInterval] = []
    for dispute in sorted(disputes, key=lambda d: d.first):
        start, end = max(0, dispute.start_ms - CONTEXT_MS), dispute.end_ms + CONTEXT_MS
        if merged and start <= merged[-1].end_ms:
            last = merged.pop()
            start, end = min(start, last.start_ms), max(end, last.end_ms)
            merged.append(DisputedInterval(start, end, (*last.disputes, dispute)))
        else:
            merged.append(DisputedInterval(start, end, (dispute,)))
    return merged


def _around(network: Network, slots: Sequence[int], interval: DisputedInterval) -> tuple[int, int]:
    """First and end (exclusive) of the segments within an interval; at least one on each side of its disputes."""

    def within(segment: int) -> bool:
        times = _times(network, slots[segment], slots[segment + 1])
        return times is None or interval.start_ms <= sum(times) / 2 <= interval.end_ms

    last = len(slots) - 1
    first, end = max(0, interval.disputes[0].first - 1), min(last, interval.disputes[-1].end + 1)
    while first and within(first - 1):
        first -= 1
    while end < last and within(end):
        end += 1
    return first, end


def _decisions(compared: Compared, first: int, end: int) -> Sequence[Decision]:
    return compared.decided.decisions[slice(*_span(compared, first, end))]


def _span(compared: Compared, first: int, end: int) -> tuple[int, int]:
    """The range of the decisions of some segments."""
    return (compared.ends[first - 1] if first else 0), compared.ends[end - 1]
