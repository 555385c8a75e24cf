"""Reconciles several hypotheses of one recording into one transcript, word by word, and keeps all readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agents.text.alignment.build import build
from agents.text.alignment.network import language, runs
from agents.text.calibration.calibrate import Calibration, probabilities, shipped
from agents.text.choose import choose
from agents.text.defects import without_defects
from agents.text.phrases import mixed, preferred
from agents.text.spoken_language import of_one_language
from schemas.words import Quality, Reconciliation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Column, Network
    from agents.text.spelling import Spelling
    from schemas.words import Decision, Hypothesis

#: Milliseconds from which an interval with words of only one recognizer is reported as a gap of the others.
GAP_MS = 5000


@dataclass(frozen=True, slots=True)
class Compared:
    """A reconciliation with the word network from which it was made."""

    decided: Reconciliation
    network: Network
    #: Per segment of the network, the index after its last decision.
    ends: list[int]
    #: Per slot of the network, the column whose reading was chosen.
    chosen: NDArray[np.int64]
    calibration: Calibration
    #: How numbers are written on which recognizers agree.
    spelling: Spelling = "recognizer"


def reconcile(
    hypotheses: Sequence[Hypothesis], calibration: Calibration | None = None, spelling: Spelling = "recognizer"
) -> Reconciliation:
    """The most probable transcript of one recording, with all readings of each slot.

    The order of the hypotheses does not matter. Those in another language than the recording, loops and fragments are
    left out, with notes.
    Every word of the result is a word of one of the others, in its spelling; unanimous words are always kept.
    `spelling` says how numbers are written on which they agree. The default calibration is the one that is part of
    Concord. Memory is linear in the words; an hour of two recognizers takes about 0.3 s.

    Raises:
        ValueError: There is no hypothesis.
    """
    return compare(hypotheses, calibration, spelling).decided


def compare(
    hypotheses: Sequence[Hypothesis], calibration: Calibration | None = None, spelling: Spelling = "recognizer"
) -> Compared:
    """As `reconcile`, but returns the word network, too. Raises as `reconcile` does."""
    if not hypotheses:
        raise ValueError("nothing to reconcile: no hypothesis was given")
    calibration = calibration or shipped()
    kept, notes = of_one_language(hypotheses, calibration.knowledge.frequency)
    kept, defects = without_defects(kept)
    notes += defects
    network = build(kept)
    chance = probabilities(network, calibration)
    decisions, chosen, ends = choose(network, chance, preferred(network, chance), spelling)
    decided = Reconciliation(
        decisions=decisions,
        method="single" if len(kept) == 1 else "calibrated",
        quality=_quality(network, decisions, chosen),
        providers=tuple(sorted(h.provider for h in kept)),
        language=language(kept),
        notes=tuple(notes),
    )
    return Compared(decided, network, ends, chosen, calibration, spelling)


def _quality(network: Network, decisions: Sequence[Decision], chosen: NDArray[np.int64]) -> Quality:
    probabilities = [decision.chosen.probability for decision in decisions if decision.chosen.text is not None]
    slots = len(network.grid)
    disputed = len(runs(~network.unanimous))
    return Quality(
        confidence=round(sum(probabilities) / len(probabilities), 4) if probabilities else None,
        agreement=round(float(network.unanimous.mean()), 4) if slots else None,
        disputed_spans_per_1000_words=round(1000 * disputed / max(len(probabilities), 1), 2),
        expected_word_errors=round(sum(1 - decision.chosen.probability for decision in decisions), 2),
        recognizers=_recognizers(network, chosen),
        mixed_disputes=_mixed(network, chosen),
        gaps=_gaps(network),
    )


def _mixed(network: Network, chosen: NDArray[np.int64]) -> float | None:
    disputes, mixes = mixed(network, chosen)
    return round(mixes / disputes, 4) if disputes else None


def _recognizers(network: Network, chosen: NDArray[np.int64]) -> dict[str, dict[str, float | None]]:
    """Each recognizer's figures in this recording: confidence, words, coverage, agreement with the result."""
    key = network.key
    result = key[np.arange(len(key)), chosen][:, None]
    present = key[result[:, 0] >= 0] >= 0
    agreed = key == result
    return {
        column.hypothesis.provider: {
            "confidence": _confidence(column),
            "words": float(len(column.words)),
            "coverage": round(float(present[:, k].mean()), 4) if len(present) else None,
            "agreement": round(float(agreed[:, k].mean()), 4) if len(agreed) else None,
        }
        for k, column in sorted(enumerate(network.columns), key=lambda item: item[1].hypothesis.provider)
    }


def _confidence(column: Column) -> float | None:
    confidences = [word.confidence for word in column.words if word.confidence is not None]
    return round(sum(confidences) / len(confidences), 4) if confidences else column.hypothesis.confidence


def _gaps(network: Network) -> tuple[tuple[int, int, str], ...]:
    """Long intervals in which only one of several recognizers has words: (start in ms, end in ms, its name)."""
    there = network.grid >= 0
    if there.shape[1] < 2 or not len(there):
        return ()
    alone = np.where(there.sum(axis=1) == 1, there.argmax(axis=1), -1)
    first = np.flatnonzero(np.diff(alone, prepend=-2))
    gaps = []
    for start, end in zip(first.tolist(), [*first[1:].tolist(), len(alone)], strict=True):
        if alone[start] < 0:
            continue
        column = network.columns[alone[start]]
        begin, finish = column.start[network.grid[start, alone[start]]], column.end[network.grid[end - 1, alone[start]]]
        if finish - begin > GAP_MS:
            gaps.append((int(begin), int(finish), column.hypothesis.provider))
    return tuple(gaps)
