"""Makes questions for an adjudicator from a reconciled transcript, and applies its choices.

A choice selects one of the readings that recognizers offered; no other word can get into a transcript.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agents.text.normalisation.normalise import is_silent, normalised
from schemas.texts import joined
from schemas.words import Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schemas.words import Decision, Quality, Reading, Reconciliation

#: Words of context on each side of a span, and slots in which they are searched.
CONTEXT, NEAR = 12, 48

#: Slots of the longest span that is asked about, and characters of the longest question. Longer spans are two speakers
#: at once, or music, or no speech, which text does not reveal.
LONGEST, CHARACTERS = 24, 4000

#: The factor by which an adjudicator's choice multiplies the odds of a reading: as if it were right four times in five.
#: Not fitted, because no adjudicator was measured; rather too low than too high, so that a wrong choice stays visible.
ODDS = 4.0


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive disputed slots, and the readings that are offered for them."""

    question: Question
    #: Indexes of its first decision in the reconciliation and of the one after its last.
    first: int
    end: int
    #: Per reading of the question, for each slot: 0 for the chosen reading, n for the n-th of the others.
    paths: tuple[tuple[int, ...], ...]
    #: Probability of the least certain choice in it.
    probability: float


def spans(decided: Reconciliation, adjudicator: str) -> list[Span]:
    """All spans that an adjudicator can decide, the most doubtful first.

    A reading is the text of one recognizer in the whole span, or the calibrated choice if it combines several. Spans
    whose readings differ only in fillers and punctuation are left out. `adjudicator` names the model and the prompt; it
    is part of the questions' ids, so that another adjudicator is asked again.
    """
    candidates = [_span(decided, first, end, adjudicator) for first, end in _disputed(decided.decisions)]
    return sorted((span for span in candidates if span is not None), key=lambda span: (span.probability, span.first))


def adjudicated(
    decided: Reconciliation, asked: Iterable[Span], choices: Mapping[str, int | None], rule: str
) -> Reconciliation:
    """The reconciliation with an adjudicator's choices, by question id; None is "neither".

    A span without a choice, or with one that was not offered, stays as it is. The odds of chosen readings are
    multiplied by `ODDS`; the others share the rest in the same proportions. So a reading that the calibration rated
    improbable is chosen and remains improbable, and a reviewer finds it by its probability. `rule` is recorded with the
    decisions.
    """
    decisions = list(decided.decisions)
    applied = 0
    for span in asked:
        choice = choices.get(span.question.id)
        if choice is None or not 0 <= choice < len(span.paths):
            continue
        applied += 1
        for at, reading in zip(range(span.first, span.end), span.paths[choice], strict=True):
            decisions[at] = _chosen(decisions[at], reading, rule)
    if not applied:
        return decided
    return replace(
        decided,
        decisions=tuple(decisions),
        method=rule.partition("/")[0],
        quality=requalified(decided.quality, decisions, _won(decided.decisions, decisions)),
    )


def overruled(before: Reconciliation, after: Reconciliation) -> int:
    """The number of slots in which the chosen texts differ."""
    pairs = zip(before.decisions, after.decisions, strict=True)
    return sum(one.chosen.text != two.chosen.text for one, two in pairs)


def _disputed(decisions: Sequence[Decision]) -> Iterable[tuple[int, int]]:
    """First and end (exclusive) of every run of slots that are not unanimous."""
    first = None
    for at, decision in enumerate(decisions):
        if decision.rule in ("unanimous", "single", "redacted"):
            if first is not None:
                yield first, at
            first = None
        elif first is None:
            first = at
    if first is not None:
        yield first, len(decisions)


def _span(decided: Reconciliation, first: int, end: int, adjudicator: str) -> Span | None:
    """The span of some slots; None if it is too long, or if its readings do not differ in words."""
    slots = decided.decisions[first:end]
    if len(slots) > LONGEST:
        return None
    paths: dict[str, tuple[int, ...]] = {}
    for path in ((0,) * len(slots), *(tuple(_index_of(name, slot) for slot in slots) for name in decided.providers)):
        paths.setdefault(_text(slots, path), path)
    if len({tuple(_words(text, decided.language)) for text in paths}) < 2:
        return None
    before = _context(reversed(decided.decisions[max(0, first - NEAR) : first]))[::-1]
    after = _context(decided.decisions[end : end + NEAR])
    if sum(map(len, [*paths, *before, *after])) > CHARACTERS:
        return None
    content = [adjudicator, decided.language, before, after, sorted(paths)]
    id = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
    # The order of the readings must not reveal their recognizers, so it follows from their content.
    readings = tuple(
        sorted(paths, key=lambda text: hashlib.sha256(f"{id}{text}".encode("utf-8", "surrogatepass")).digest())
    )
    question = Question(id, joined(before), readings, joined(after))
    doubt = min(slot.chosen.probability for slot in slots)
    return Span(question, first, end, tuple(paths[text] for text in readings), doubt)


def _index_of(provider: str, slot: Decision) -> int:
    """The index of a recognizer's reading. A recognizer without one has the chosen word as part of another phrase."""
    return next((n for n, other in enumerate(slot.others, 1) if provider in other.providers), 0)


def _reading(slot: Decision, index: int) -> Reading:
    return slot.others[index - 1] if index else slot.chosen


def _text(slots: Sequence[Decision], path: Sequence[int]) -> str:
    texts = (_reading(slot, index).text for slot, index in zip(slots, path, strict=True))
    return joined(text for text in texts if text)


def _words(text: str, language: str | None) -> list[str]:
    """The text's tokens without fillers and punctuation."""
    return [token for token in normalised(text, language) if not is_silent(token)]


def _context(decisions: Iterable[Decision]) -> list[str]:
    """The first `CONTEXT` chosen words."""
    words: list[str] = []
    for decision in decisions:
        if decision.chosen.text is not None:
            words.append(decision.chosen.text)
        if len(words) == CONTEXT:
            break
    return words


def _chosen(slot: Decision, index: int, rule: str) -> Decision:
    """The decision for the reading with this index."""
    readings = (slot.chosen, *slot.others)
    before = readings[index].probability
    after = ODDS * before / (1 - before + ODDS * before)
    # A probability of 1 has infinite odds: nothing changes.
    rest = (1 - after) / (1 - before) if before < 1 else 1.0
    updated = [
        replace(reading, probability=round(after if n == index else reading.probability * rest, 4))
        for n, reading in enumerate(readings)
    ]
    chosen = updated.pop(index)
    others = tuple(sorted(updated, key=lambda reading: -reading.probability))
    return replace(slot, chosen=chosen, others=others, rule=rule)


def requalified(quality: Quality, decisions: Sequence[Decision], won: Mapping[str, int]) -> Quality:
    """The quality after new decisions: expected errors, confidence, and each recognizer's agreement with the result.

    `won` has, by recognizer, the number of slots in which it agrees now and did not before. All other figures describe
    the hypotheses and stay.
    """
    probabilities = [decision.chosen.probability for decision in decisions if decision.chosen.text is not None]
    recognizers = {
        name: figures | {"agreement": _increased(figures.get("agreement"), won.get(name, 0) / max(len(decisions), 1))}
        for name, figures in quality.recognizers.items()
    }
    return replace(
        quality,
        confidence=round(sum(probabilities) / len(probabilities), 4) if probabilities else None,
        expected_word_errors=round(sum(1 - decision.chosen.probability for decision in decisions), 2),
        recognizers=recognizers,
    )


def _won(before: Sequence[Decision], after: Sequence[Decision]) -> Counter[str]:
    """By recognizer, in how many more slots it agrees with the result than before."""
    won: Counter[str] = Counter()
    for old, new in zip(before, after, strict=True):
        if old.chosen.text != new.chosen.text:
            won.update(new.chosen.providers)
            won.subtract(old.chosen.providers)
    return won


def _increased(share: float | None, by: float) -> float | None:
    """The share plus `by`, limited to 0 to 1."""
    return None if share is None else round(min(1.0, max(0.0, share + by)), 4)
