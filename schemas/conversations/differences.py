"""Where one recognizer's transcript differs from what several have decided. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schemas.texts import joined
from schemas.words import Decision, Reconciliation


@dataclass(frozen=True, slots=True)
class Difference:
    """Consecutive words that one recognizer has otherwise than they were decided."""

    #: From the start of the recording; None if unknown.
    start_ms: int | None
    #: What it has, and what was decided; empty for nothing.
    written: str
    decided: str
    #: The mean probability that what was decided is right, 0 to 1.
    probability: float


def differences(reconciliation: Reconciliation, provider: str) -> list[Difference]:
    """Where `provider` has other words than the transcript, in order. Where nobody contradicts it, or its words were
    chosen, there is no difference, and neither is there in punctuation or capitals.
    """
    return [_difference(run, provider) for run in _runs(reconciliation.decisions, provider)]


def _runs(decisions: Iterable[Decision], provider: str) -> Iterator[list[Decision]]:
    run: list[Decision] = []
    for decision in decisions:
        if provider not in decision.chosen.providers and _is_said(decision, provider):
            run.append(decision)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _is_said(decision: Decision, provider: str) -> bool:
    """Whether there is a word here, decided or of this recognizer."""
    return decision.chosen.text is not None or _written(decision, provider) is not None


def _written(decision: Decision, provider: str) -> str | None:
    return next((other.text for other in decision.others if provider in other.providers), None)


def _difference(run: list[Decision], provider: str) -> Difference:
    starts = [decision.chosen.start_ms for decision in run] + [
        other.start_ms for decision in run for other in decision.others
    ]
    return Difference(
        start_ms=next((start for start in starts if start is not None), None),
        written=joined(text for decision in run if (text := _written(decision, provider)) is not None),
        decided=joined(decision.chosen.text for decision in run if decision.chosen.text is not None),
        probability=sum(decision.chosen.probability for decision in run) / len(run),
    )
