"""What else was heard where recognizers disagree, so that a call is found by a word that another recognizer heard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from schemas.texts import joined
from schemas.transcript_words import TranscriptWord
from schemas.words import Decision, Reconciliation

#: Words before and after what was heard that are repeated with it, so that phrases with it are found, too.
AROUND: Final = 3


@dataclass(frozen=True, slots=True)
class Alternative:
    """One recognizer's reading of a disputed span."""

    #: Index of the word at which the span begins; of the next one, if the transcript has no word there.
    at: int
    #: The word, and what was heard in its place; the word is None where the transcript has none.
    heard: tuple[tuple[str | None, str], ...]
    #: The reading with the words around it.
    text: str


@dataclass(frozen=True, slots=True)
class _Slot:
    """A decision that is still disputed in this version of the transcript."""

    at: int
    #: 1 if the transcript has a word there, else 0.
    words: int
    id: str
    decision: Decision


def alternatives(reconciliation: Reconciliation, words: Sequence[TranscriptWord]) -> list[Alternative]:
    """Every other reading of the words that are disputed in this version of the transcript, in order.

    What a person has decided has no other reading any more. Where a run chose that nothing was said, what others heard
    counts as disputed.
    """
    found: list[Alternative] = []
    for span in _spans(reconciliation, words):
        providers = {provider for slot in span for provider in _providers(slot.decision)}
        seen: set[tuple[str | None, ...]] = {tuple(slot.decision.chosen.text for slot in span)}
        for provider in sorted(providers):
            reading = tuple(_of_provider(slot.decision, provider) for slot in span)
            if reading not in seen:
                seen.add(reading)
                found.append(_alternative(span, reading, words))
    return found


def _alternative(span: Sequence[_Slot], reading: Sequence[str | None], words: Sequence[TranscriptWord]) -> Alternative:
    first, end = span[0].at, span[-1].at + span[-1].words
    before = [word.text for word in words[max(0, first - AROUND) : first]]
    after = [word.text for word in words[end : end + AROUND]]
    heard = tuple(
        (slot.id if slot.words else None, text)
        for slot, text in zip(span, reading, strict=True)
        if text is not None and text != slot.decision.chosen.text
    )
    return Alternative(first, heard, joined([*before, *filter(None, reading), *after]))


def _spans(reconciliation: Reconciliation, words: Sequence[TranscriptWord]) -> Iterator[list[_Slot]]:
    """Disputed decisions that follow on each other."""
    place = {word.id: n for n, word in enumerate(words)}
    slots: list[tuple[bool, _Slot]] = []
    at = 0
    for number, decision in enumerate(reconciliation.decisions):
        id = f"w{number}"
        index = place.get(id)
        at = index if index is not None else at
        is_disputed = bool(decision.others) and (
            words[index].disputed if index is not None else decision.chosen.text is None
        )
        slots.append((is_disputed, _Slot(at, int(index is not None), id, decision)))
        at += index is not None
    for is_disputed, group in groupby(slots, key=lambda slot: slot[0]):
        if is_disputed:
            yield [slot for _, slot in group]


def _providers(decision: Decision) -> set[str]:
    return {provider for reading in (decision.chosen, *decision.others) for provider in reading.providers}


def _of_provider(decision: Decision, provider: str) -> str | None:
    """What this recognizer heard; what was chosen, if it tells nothing."""
    readings = (reading for reading in decision.others if provider in reading.providers)
    return next(readings, decision.chosen).text
