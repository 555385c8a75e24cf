"""Which stretches of a recording are worth a third opinion, and what it changes: only what two recognizers disagree
about, and only into what one of the three heard.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agents.text.adjudicate import requalified
from agents.text.reconcile import compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agents.text.alignment.network import Network
    from agents.text.reconcile import Compared
    from schemas.words import Decision, Hypothesis, Reconciliation

#: Milliseconds of sound on both sides of what is disputed: a recognizer needs some words around those it shall hear.
CONTEXT_MS = 1500


@dataclass(frozen=True, slots=True)
class Dispute:
    """Segments that touch and are not unanimous, as positions among the network's; an agreed one is on each side."""

    first: int
    end: int
    start_ms: int
    end_ms: int
    #: Wrong words to be expected in it.
    doubt: float


@dataclass(frozen=True, slots=True)
class DisputedInterval:
    """A part of the recording to be heard again."""

    start_ms: int
    end_ms: int
    disputes: tuple[Dispute, ...]

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms


def disputes(compared: Compared) -> tuple[list[Dispute], int]:
    """What a third opinion may decide, in order; and how much of it has no time at which it could be heard.

    Differences in fillers and punctuation are left out.
    """
    slots = _slots(compared.network)
    found: list[Dispute] = []
    timeless = 0
    for first, end in _runs(compared.network, slots):
        if not _matters(compared.network, slots[first], slots[end]):
            continue
        when = _when(compared.network, slots, first, end)
        if when is None:
            timeless += 1
            continue
        doubt = sum(1 - decision.chosen.probability for decision in _decisions(compared, first, end))
        found.append(Dispute(first, end, *when, doubt))
    return found, timeless


def disputed_intervals(found: Iterable[Dispute], limit_ms: int) -> list[DisputedInterval]:
    """What to hear again, in order, no longer than `limit_ms` in all: where the most errors a second are expected."""
    taken: list[Dispute] = []
    for dispute in sorted(found, key=lambda d: (-d.doubt / (d.end_ms - d.start_ms + 2 * CONTEXT_MS), d.first)):
        if sum(interval.length_ms for interval in _merged([*taken, dispute])) <= limit_ms:
            taken.append(dispute)
    return _merged(taken)


def settled(compared: Compared, heard: Mapping[DisputedInterval, Hypothesis]) -> Reconciliation:
    """The reconciliation with what one more recognizer heard in some stretches, its times those of the recording.

    Each stretch is decided by itself. Only disputed words are decided again: what all others heard stays, and so does a
    dispute for which the new words fit in no way between the agreed ones around it. Who heard not a word in a whole
    stretch, in which others agree on some, has not listened well: that counts as not having been asked.
    """
    heard = {interval: third for interval, third in heard.items() if third.words}
    decisions = list(compared.decided.decisions)
    won: Counter[str] = Counter()
    for interval in sorted(heard, key=lambda s: s.start_ms, reverse=True):
        again = _Again(compared, interval, heard[interval])
        for dispute in reversed(interval.disputes):
            new = again.decisions(dispute)
            if new is None:
                continue
            at = slice(*_span(compared, dispute.first, dispute.end))
            old = decisions[at]
            won.subtract(name for decision in old for name in decision.chosen.providers)
            won.update(name for decision in new for name in decision.chosen.providers)
            speakers = [decision.speaker for decision in old]
            decisions[at] = [
                replace(decision, speaker=speakers[min(n, len(speakers) - 1)]) for n, decision in enumerate(new)
            ]
    return _with(compared.decided, decisions, won, list(heard.values()))


def _with(
    decided: Reconciliation, decisions: Sequence[Decision], won: Counter[str], heard: Sequence[Hypothesis]
) -> Reconciliation:
    if not heard:
        return decided
    words = [word for hypothesis in heard for word in hypothesis.words]
    sure = [word.confidence for word in words if word.confidence is not None]
    # It was asked about the worst places only: shares of the whole would say nothing about it.
    figures = {
        "confidence": round(sum(sure) / len(sure), 4) if sure else None,
        "words": float(len(words)),
        "coverage": None,
        "agreement": None,
    }
    quality = requalified(decided.quality, decisions, won)
    third = heard[0].provider
    return replace(
        decided,
        decisions=tuple(decisions),
        quality=replace(quality, recognizers=quality.recognizers | {third: figures}),
        providers=tuple(sorted({*decided.providers, third})),
    )


class _Again:
    """One stretch, decided with the words that the new recognizer heard in it."""

    def __init__(self, compared: Compared, interval: DisputedInterval, third: Hypothesis) -> None:
        network = compared.network
        self.names = [column.hypothesis.provider for column in network.columns]
        self.before = _places(network, self.names)
        first, end = _around(network, _slots(network), interval)
        begin, stop = self.before[first], self.before[end]
        parts = [
            replace(column.hypothesis, words=column.words[begin[k] : stop[k]])
            for k, column in enumerate(network.columns)
        ]
        # All are read in the tongue in which they were before: then also the words are the same.
        tongue = compared.decided.language
        self.compared = compare([replace(hypothesis, language=tongue) for hypothesis in (*parts, third)])
        #: Places between segments, as in `before`.
        self.after = [
            tuple(a + b for a, b in zip(place, begin, strict=True))
            for place in _places(self.compared.network, self.names)
        ]

    def decisions(self, dispute: Dispute) -> Sequence[Decision] | None:
        """What stands in place of the dispute's decisions, which cover the same words of the others; None if those can
        not be told from their neighbours any more.
        """
        begin, end = self.before[dispute.first], self.before[dispute.end]
        if begin not in self.after or end not in self.after:
            return None
        # What only the new one heard, between the dispute and the agreed words, belongs to the dispute.
        return _decisions(self.compared, self.after.index(begin), len(self.after) - 1 - self.after[::-1].index(end))


def _places(network: Network, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Before each segment, and at the end: how many words of each of these recognizers were before."""
    columns = {column.hypothesis.provider: (k, column) for k, column in enumerate(network.columns)}
    found = np.zeros((len(network.grid) + 1, len(names)), dtype=np.int64)
    for n, (k, column) in enumerate(columns[name] for name in names):
        there = np.flatnonzero(network.grid[:, k] >= 0)
        found[there + 1, n] = column.last[network.grid[there, k]] + 1
    return list(map(tuple, np.maximum.accumulate(found)[_slots(network)].tolist()))


def _slots(network: Network) -> list[int]:
    """Per segment its first slot, and at the end how many slots there are."""
    return [*np.flatnonzero(np.diff(network.segment, prepend=-1)).tolist(), len(network.grid)]


def _runs(network: Network, slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and end of every run of segments that are not unanimous."""
    agreed = np.logical_and.reduceat(network.unanimous, slots[:-1]) if len(slots) > 1 else np.zeros(0, dtype=bool)
    edges = np.flatnonzero(np.diff(~agreed, prepend=False, append=False)).tolist()
    yield from zip(edges[::2], edges[1::2], strict=True)


def _matters(network: Network, begin: int, end: int) -> bool:
    """Whether recognizers differ there in words, and not in fillers only."""
    columns = network.key[begin:end].T
    return len({tuple(k for k in keys if k >= 0 and not network.silent[k]) for keys in columns.tolist()}) > 1


def _when(network: Network, slots: Sequence[int], first: int, end: int) -> tuple[int, int] | None:
    """When the segments were said, by whoever knows; else what was said between their neighbours; None if nobody
    knows.
    """
    inside = _times(network, slots[first], slots[end])
    if inside is not None:
        return inside
    before = _times(network, slots[first - 1], slots[first]) if first else (0, 0)
    after = _times(network, slots[end], slots[end + 1]) if end < len(slots) - 1 else None
    return None if before is None or after is None else (before[1], max(before[1], after[0]))


def _times(network: Network, slot: int, after: int) -> tuple[int, int] | None:
    """Start of the first and end of the last word in some slots, ms."""
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


def _merged(found: Iterable[Dispute]) -> list[DisputedInterval]:
    """The sound around disputes, each second of it once."""
    merged: list[DisputedInterval] = []
    for dispute in sorted(found, key=lambda d: d.first):
        start, end = max(0, dispute.start_ms - CONTEXT_MS), dispute.end_ms + CONTEXT_MS
        if merged and start <= merged[-1].end_ms:
            last = merged.pop()
            start, end, more = min(start, last.start_ms), max(end, last.end_ms), last.disputes
            merged.append(DisputedInterval(start, end, (*more, dispute)))
        else:
            merged.append(DisputedInterval(start, end, (dispute,)))
    return merged


def _around(network: Network, slots: Sequence[int], interval: DisputedInterval) -> tuple[int, int]:
    """First and end of the segments that were said in a stretch; one more on each side of its disputes in any case."""

    def within(segment: int) -> bool:
        when = _times(network, slots[segment], slots[segment + 1])
        return when is None or interval.start_ms <= sum(when) / 2 <= interval.end_ms

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
    """Where the decisions of some segments are."""
    return (compared.ends[first - 1] if first else 0), compared.ends[end - 1]
