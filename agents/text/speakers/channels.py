"""Reconciles a call whose channels were heard apart: each channel by itself, and then in the order of time.

Where two people talk at once, recognizers order their words differently, which an alignment takes for disagreement. So
the channels are compared one after the other, as a recording of their lengths together: the times of each are moved
behind those of the one before. The evidence on each recognizer is still that of the whole call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from agents.text.reconcile import reconcile
from agents.text.speakers.labels import labelled, letters
from schemas.texts import SENTENCE_ENDS
from schemas.words import Decision, Hypothesis, Reading, Reconciliation, Word

if TYPE_CHECKING:
    from agents.text.calibration.calibrate import Calibration
    from agents.text.spelling import Spelling

Timed = TypeVar("Timed", Word, Reading)

#: Milliseconds between two channels, more than words of one can be apart that are aligned.
APART_MS = 60_000
#: Milliseconds around a word in which the same word of another recognizer tells its channel.
NEAR_MS = 1500
#: Milliseconds of a pause at which another speaker's words may come between.
PAUSE_MS = 300


def reconcile_channels(
    hypotheses: Sequence[Hypothesis], calibration: Calibration | None = None, spelling: Spelling = "recognizer"
) -> Reconciliation | None:
    """The transcript in the order of time, each word with its channel's speaker; None if no hypothesis has words of two
    channels.

    Hypotheses of recognizers that have heard the channels mixed are divided by the others' words. Speakers are letters,
    and a note says which channel each one is.
    """
    divided, notes = _divided(hypotheses)
    if not divided:
        return None
    stride = APART_MS + max(word.end_ms or word.start_ms or 0 for one in divided for word in one.words)
    moved = [_moved(one, stride) for one in divided]
    return _in_time(reconcile(moved, calibration, spelling), stride, notes)


def _divided(hypotheses: Sequence[Hypothesis]) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses with a channel for every word; none if nobody has heard two channels. And notes."""
    apart = [one for one in hypotheses if len(_channels(one)) > 1]
    if not apart:
        return [], []
    index = _Index(word for one in apart for word in one.words)
    divided, notes = [], []
    for one in hypotheses:
        if one not in apart and one.words and all(word.start_ms is None for word in one.words):
            notes.append(f"{one.provider} is left out: its words have no times by which they belong to a channel.")
        else:
            divided.append(replace(one, words=tuple(index.with_channels(one.words))))
    return divided, notes


def _channels(hypothesis: Hypothesis) -> set[int]:
    return {word.channel for word in hypothesis.words if word.channel is not None}


class _Index:
    """Words whose channel is known, by their times."""

    def __init__(self, words: Iterable[Word]) -> None:
        known = [(word.start_ms, _plain(word.text), word.channel) for word in words if word.start_ms is not None]
        self._words = sorted((start, text, channel) for start, text, channel in known if channel is not None)

    def with_channels(self, words: Iterable[Word]) -> Iterator[Word]:
        """The words, each with the channel of the nearest word of the same text, otherwise of the nearest word."""
        channel = self._words[0][2] if self._words else 0
        for word in words:
            channel = self._channel(word, channel) if word.channel is None else word.channel
            yield replace(word, channel=channel, speaker=None)

    def _channel(self, word: Word, before: int) -> int:
        if word.start_ms is None:
            return before
        at = bisect_left(self._words, (word.start_ms - NEAR_MS,))
        near = []
        while at < len(self._words) and self._words[at][0] <= word.start_ms + NEAR_MS:
            start, text, channel = self._words[at]
            near.append((text != _plain(word.text), abs(start - word.start_ms), channel != before, channel))
            at += 1
        return min(near)[3] if near else before


def _plain(text: str) -> str:
    return text.casefold().strip(".,?!;:-\"'")


def _moved(hypothesis: Hypothesis, stride: int) -> Hypothesis:
    """The words channel by channel, each channel's a stride behind those of the one before."""
    words = sorted(hypothesis.words, key=lambda word: word.channel or 0)
    return replace(hypothesis, words=tuple(_shifted(word, stride * (word.channel or 0)) for word in words))


def _shifted(timed: Timed, by_ms: int) -> Timed:
    start, end = timed.start_ms, timed.end_ms
    return replace(
        timed, start_ms=None if start is None else start + by_ms, end_ms=None if end is None else end + by_ms
    )


def _in_time(reconciliation: Reconciliation, stride: int, notes: Sequence[str]) -> Reconciliation:
    """The decisions with their own times, in the order in which they were said."""
    channels = list(_channel_of_each(reconciliation.decisions, stride))
    decisions = [_back(one, stride * channel) for one, channel in zip(reconciliation.decisions, channels, strict=True)]
    order = _order(decisions, channels)
    names = letters(channels[n] for n in order if decisions[n].chosen.text is not None)
    told = ", ".join(f"{name} is on channel {channel + 1}" for channel, name in names.items())
    gaps = tuple((start % stride, end % stride, provider) for start, end, provider in reconciliation.quality.gaps)
    return replace(
        reconciliation,
        decisions=labelled([decisions[n] for n in order], [channels[n] for n in order]),
        quality=replace(reconciliation.quality, gaps=gaps),
        notes=(*reconciliation.notes, *notes, f"Speakers are told apart by channel: {told or 'nobody speaks'}."),
    )


def _channel_of_each(decisions: Sequence[Decision], stride: int) -> Iterator[int]:
    channel = 0
    for one in decisions:
        times = (reading.start_ms for reading in (one.chosen, *one.others) if reading.start_ms is not None)
        channel = max(channel, next(times, channel * stride) // stride)
        yield channel


def _back(decision: Decision, by_ms: int) -> Decision:
    chosen, *others = (_shifted(reading, -by_ms) for reading in (decision.chosen, *decision.others))
    return replace(decision, chosen=chosen, others=tuple(others))


def _order(decisions: Sequence[Decision], channels: Sequence[int]) -> list[int]:
    """The indexes of the decisions, phrase by phrase in the order of their starts; each channel's own order stays.

    A phrase ends at a pause or with a sentence: between its words no other speaker's come.
    """
    starts: list[int] = []
    phrase = end = 0
    for n, one in enumerate(decisions):
        if n and channels[n] != channels[n - 1]:
            phrase = end = 0
        start = one.chosen.start_ms
        if start is not None and (start - end > PAUSE_MS or not end or _ends_sentence(decisions[n - 1])):
            phrase = max(phrase, start)
        end = max(end, one.chosen.end_ms or 0)
        starts.append(phrase)
    return sorted(range(len(starts)), key=lambda n: (starts[n], channels[n], n))


def _ends_sentence(decision: Decision) -> bool:
    return (decision.chosen.text or "").endswith(SENTENCE_ENDS)
