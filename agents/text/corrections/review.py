"""Finds the disputed spans of a transcript that a person should decide, and applies what a reviewer chose."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final
from uuid import uuid5

from agents.text.corrections.changes import place
from agents.text.corrections.draft import Draft, Edited
from schemas.corrections.rows import ReviewItem
from schemas.ids import NAMESPACE
from schemas.jobs.rows import OfRun, run_fields
from schemas.texts import joined
from schemas.transcript_words import TranscriptWord
from schemas.words import Decision, Reading, Reconciliation

#: Spans of a run that are put into the queue, the most doubtful; slots of one span; readings that are offered of it.
MAX_ITEMS: Final = 100
MAX_SLOTS: Final = 24
MAX_READINGS: Final = 8
#: Words of context on each side.
CONTEXT: Final = 12

_MARKS: Final = re.compile(r"[^\w]+")
#: Index of the first decision of a span, and of the one behind its last.
_Span = tuple[int, int]


def review_items(owner: OfRun, reconciliation: Reconciliation) -> tuple[ReviewItem, ...]:
    """The most doubtful disputed spans of a run, most doubtful first. What differs in punctuation only is none."""
    decisions = reconciliation.decisions
    spans = [(_doubt(decisions[first:end]), first, end) for first, end in _spans(decisions)]
    items: list[ReviewItem] = []
    # Twice as many as are kept: some of them differ in punctuation only, which costs more to find out.
    for doubt, first, end in heapq.nlargest(2 * MAX_ITEMS, spans, key=lambda span: (span[0], -span[1])):
        readings = _readings(decisions, first, end)
        if len(items) < MAX_ITEMS and len({_key(reading["text"]) for reading in readings}) > 1:
            items.append(_item(owner, decisions, (first, end), doubt, readings))
    return tuple(items)


def _spans(decisions: Sequence[Decision]) -> Iterator[_Span]:
    """Consecutive decisions with several readings, in parts of `MAX_SLOTS`."""
    for is_disputed, group in groupby(range(len(decisions)), key=lambda n: bool(decisions[n].others)):
        if is_disputed:
            slots = list(group)
            for first in range(slots[0], slots[-1] + 1, MAX_SLOTS):
                yield first, min(first + MAX_SLOTS, slots[-1] + 1)


def _doubt(decisions: Sequence[Decision]) -> float:
    return sum(1 - decision.chosen.probability for decision in decisions)


def _item(
    owner: OfRun, decisions: Sequence[Decision], span: _Span, doubt: float, readings: list[dict[str, Any]]
) -> ReviewItem:
    first, end = span
    disputed = decisions[first:end]
    heard = [reading for decision in disputed for reading in (decision.chosen, *decision.others)]
    starts = [reading.start_ms for reading in heard if reading.start_ms is not None]
    ends = [reading.end_ms for reading in heard if reading.end_ms is not None]
    name = f"review\x1f{owner.tenant_id}\x1f{owner.job_id}\x1f{owner.run}\x1f{first}"
    return ReviewItem(
        **run_fields(owner),
        id=str(uuid5(NAMESPACE, name)),
        start_ms=min(starts, default=None),
        end_ms=max(ends, default=None),
        speaker=next((decision.speaker for decision in disputed if decision.speaker is not None), None),
        probability=min(decision.chosen.probability for decision in disputed),
        doubt=doubt,
        before=_text(decisions[max(0, first - CONTEXT) : first]),
        after=_text(decisions[end : end + CONTEXT]),
        slots=[f"w{slot}" for slot in range(first, end)],
        readings=readings,
    )


def _text(decisions: Sequence[Decision]) -> str:
    return joined(decision.chosen.text or "" for decision in decisions)


def _key(text: str) -> str:
    """What makes readings different for a reviewer."""
    return _MARKS.sub(" ", text.casefold()).strip()


def _readings(decisions: Sequence[Decision], first: int, end: int) -> list[dict[str, Any]]:
    """What the span says by the run's choice, then by each recognizer; those that say the same share one."""
    slots = range(first, end)
    chosen = _reading([(slot, decisions[slot].chosen) for slot in slots])
    readings: dict[str, dict[str, Any]] = {chosen["text"]: chosen}
    by_provider: dict[str, list[tuple[int, Reading]]] = {}
    for slot in slots:
        for reading in (decisions[slot].chosen, *decisions[slot].others):
            for provider in reading.providers:
                by_provider.setdefault(provider, []).append((slot, reading))
    for provider, heard in sorted(by_provider.items()):
        theirs = _reading(heard)
        readings.setdefault(theirs["text"], theirs)["providers"].append(provider)
    others = sorted(list(readings.values())[1:], key=lambda reading: -len(reading["providers"]))
    return [chosen, *others][:MAX_READINGS]


def _reading(heard: Sequence[tuple[int, Reading]]) -> dict[str, Any]:
    words = [[f"w{slot}", r.text, r.start_ms, r.end_ms] for slot, r in heard if r.text is not None]
    return {"text": joined(r.text or "" for _, r in heard), "providers": [], "words": words}


def decided(words: Sequence[TranscriptWord], item: ReviewItem, choice: int | str, version: int) -> Edited:
    """The words of version `version`, where the span reads as a reviewer chose: a reading, or the reviewer's text."""
    draft = Draft(words, version)
    heard = _own_words(item, choice) if isinstance(choice, str) else item.readings[choice]["words"]
    texts = {slot: (text, (start, end)) for slot, text, start, end in heard}
    for slot in item.slots:
        place(draft, slot, *texts.get(slot, (None, (None, None))))
    return draft.finished()


def _own_words(item: ReviewItem, text: str) -> list[list[Any]]:
    """A reviewer's own text in the slots of the span: the last one takes what is left, unused ones have no word."""
    parts = text.split()
    parts[len(item.slots) - 1 :] = [" ".join(parts[len(item.slots) - 1 :])] if len(parts) >= len(item.slots) else []
    times: dict[str, list[Any]] = {slot: [start, end] for slot, _, start, end in item.readings[0]["words"]}
    return [[slot, part, *times.get(slot, [None, None])] for slot, part in zip(item.slots, parts, strict=False)]
