"""What a judge is asked about a reconciled transcript, and what its answers change: never more than a choice between
readings that recognizers offered.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agents.text.normalisation.normalise import is_silent, normalised
from schemas.words import Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schemas.words import Decision, Quality, Reading, Reconciliation

#: Words of context on each side of a span, and slots in which they are looked for.
CONTEXT, NEAR = 12, 48

#: Slots of the longest span that is asked about, and characters of the longest question. What is longer is two people
#: at once, or music, or no speech at all: text cannot tell.
LONGEST, CHARACTERS = 24, 4000

#: By how much a judge's answer multiplies the odds of the reading it chose: as if it were right four times in five.
#: Not fitted, for want of a judge to measure; too low rather than too high keeps a wrong answer visible.
ODDS = 4.0


@dataclass(frozen=True, slots=True)
class Span:
    """Disputed slots that touch, and the ways through them that are offered."""

    question: Question
    #: The slots, as positions in the reconciliation's decisions.
    first: int
    end: int
    #: Per reading of the question, for each slot: 0 is the chosen reading, n the n-th of the others.
    paths: tuple[tuple[int, ...], ...]
    #: Probability of the least certain choice in it.
    probability: float


def spans(decided: Reconciliation, adjudicator: str) -> list[Span]:
    """Everything that a judge could decide, the most doubtful first.

    A reading is what one recognizer heard in the whole span, or the calibrated choice where that is pieced together.
    Spans that differ in fillers and punctuation only are left out. `adjudicator` names the model and the prompt, which
    are part of a question's id: another adjudicator is asked anew.
    """
    found = [_span(decided, first, end, adjudicator) for first, end in _disputed(decided.decisions)]
    return sorted((span for span in found if span is not None), key=lambda span: (span.probability, span.first))


def adjudicated(
    decided: Reconciliation, asked: Iterable[Span], choices: Mapping[str, int | None], rule: str
) -> Reconciliation:
    """The reconciliation with a judge's choices, by question; None is "neither".

    Where there is no choice, or one that was not offered, everything stays as it was. Where there is one, the chosen
    readings' odds are multiplied by `ODDS` and the others share what is left as before: a choice that the calibration
    thought improbable is made, and stays improbable, so that a person looks at it.
    """
    decisions = list(decided.decisions)
    taken = 0
    for span in asked:
        choice = choices.get(span.question.id)
        if choice is None or not 0 <= choice < len(span.paths):
            continue
        taken += 1
        for at, reading in zip(range(span.first, span.end), span.paths[choice], strict=True):
            decisions[at] = _chosen(decisions[at], reading, rule)
    if not taken:
        return decided
    return replace(
        decided,
        decisions=tuple(decisions),
        method=rule.partition("/")[0],
        quality=requalified(decided.quality, decisions, _won(decided.decisions, decisions)),
    )


def overruled(before: Reconciliation, after: Reconciliation) -> int:
    """In how many slots the transcript changed."""
    pairs = zip(before.decisions, after.decisions, strict=True)
    return sum(one.chosen.text != two.chosen.text for one, two in pairs)


def _disputed(decisions: Sequence[Decision]) -> Iterable[tuple[int, int]]:
    """First and end of every run of slots that are not unanimous."""
    first = None
    for at, decision in enumerate(decisions):
        if decision.rule in ("unanimous", "single"):
            if first is not None:
                yield first, at
            first = None
        elif first is None:
            first = at
    if first is not None:
        yield first, len(decisions)


def _span(decided: Reconciliation, first: int, end: int, adjudicator: str) -> Span | None:
    slots = decided.decisions[first:end]
    if len(slots) > LONGEST:
        return None
    paths: dict[str, tuple[int, ...]] = {}
    for path in ((0,) * len(slots), *(tuple(_heard_by(name, slot) for slot in slots) for name in decided.providers)):
        paths.setdefault(_said(slots, path), path)
    if len({tuple(_counted(text, decided.language)) for text in paths}) < 2:
        return None
    before = _context(reversed(decided.decisions[max(0, first - NEAR) : first]))[::-1]
    after = _context(decided.decisions[end : end + NEAR])
    if sum(map(len, [*paths, *before, *after])) > CHARACTERS:
        return None
    content = [adjudicator, decided.language, before, after, sorted(paths)]
    id = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
    # Whose reading comes first must tell nothing: the order is a matter of the content.
    readings = tuple(
        sorted(paths, key=lambda text: hashlib.sha256(f"{id}{text}".encode("utf-8", "surrogatepass")).digest())
    )
    question = Question(id, " ".join(before), readings, " ".join(after))
    doubt = min(slot.chosen.probability for slot in slots)
    return Span(question, first, end, tuple(paths[text] for text in readings), doubt)


def _heard_by(provider: str, slot: Decision) -> int:
    """Which reading is this recognizer's. One that is in none heard the chosen word, as part of another phrase."""
    return next((n for n, other in enumerate(slot.others, 1) if provider in other.providers), 0)


def _reading(slot: Decision, which: int) -> Reading:
    return slot.others[which - 1] if which else slot.chosen


def _said(slots: Sequence[Decision], path: Sequence[int]) -> str:
    texts = (_reading(slot, which).text for slot, which in zip(slots, path, strict=True))
    return " ".join(text for text in texts if text)


def _counted(text: str, language: str | None) -> list[str]:
    return [token for token in normalised(text, language) if not is_silent(token)]


def _context(decisions: Iterable[Decision]) -> list[str]:
    """The nearest words of a side."""
    words: list[str] = []
    for decision in decisions:
        if decision.chosen.text is not None:
            words.append(decision.chosen.text)
        if len(words) == CONTEXT:
            break
    return words


def _chosen(slot: Decision, which: int, rule: str) -> Decision:
    readings = (slot.chosen, *slot.others)
    before = readings[which].probability
    after = ODDS * before / (1 - before + ODDS * before)
    # Certainty on either side is beyond any odds: then nothing moves.
    left = (1 - after) / (1 - before) if before < 1 else 1.0
    moved = [
        replace(reading, probability=round(after if n == which else reading.probability * left, 4))
        for n, reading in enumerate(readings)
    ]
    chosen = moved.pop(which)
    others = tuple(sorted(moved, key=lambda reading: -reading.probability))
    return replace(slot, chosen=chosen, others=others, rule=rule)


def requalified(quality: Quality, decisions: Sequence[Decision], won: Mapping[str, int]) -> Quality:
    """The figures that follow the choice: probabilities, and how often each recognizer agrees with the result, which it
    now does in so many slots more. What was disputed and who heard something where stays as it is.
    """
    sure = [decision.chosen.probability for decision in decisions if decision.chosen.text is not None]
    recognizers = {
        name: said | {"agreement": _moved(said.get("agreement"), won.get(name, 0) / max(len(decisions), 1))}
        for name, said in quality.recognizers.items()
    }
    return replace(
        quality,
        confidence=round(sum(sure) / len(sure), 4) if sure else None,
        expected_word_errors=round(sum(1 - decision.chosen.probability for decision in decisions), 2),
        recognizers=recognizers,
    )


def _won(before: Sequence[Decision], after: Sequence[Decision]) -> Counter[str]:
    """In how many slots more each recognizer agrees with the result."""
    won: Counter[str] = Counter()
    for old, new in zip(before, after, strict=True):
        if old.chosen.text != new.chosen.text:
            won.update(new.chosen.providers)
            won.subtract(old.chosen.providers)
    return won


def _moved(share: float | None, by: float) -> float | None:
    return None if share is None else round(min(1.0, max(0.0, share + by)), 4)
