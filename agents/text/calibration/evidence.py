"""Features of each reading of a disputed slot, from which the trees compute its probability.

They need no reference transcript, and no recognizer needs to be known from the fit.

There is one row per candidate: a slot and a distinct reading of it, which may be "nothing". It is built from a table of
facts per slot and column: the facts of the candidate's supporters, those of the supporters of its strongest rival,
their differences, and facts about the slot. A second table of features follows from a first pass of probabilities: how
right each recognizer is in this recording as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agents.text.calibration.facts import FACTS, LOCAL, Facts
from agents.text.calibration.standing import LEAN, STANDING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.text.calibration.facts import View

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]
    Flags = NDArray[np.bool_]

#: Features of a row before the facts: votes and their weights.
COUNTS = 7
#: Facts per column whose difference between candidate and rival is a feature, too: what does not depend on the slot
#: alone.
DIFFERENCES = [1, 3, 4, 5, 6, 7, *range(19, LOCAL + len(STANDING)), FACTS - 6, FACTS - 4, FACTS - 2, FACTS - 1]
#: The indexes in a row of the recognizers' record: of the candidate, of the rival, and their differences.
RECORD_COLUMNS = (
    [COUNTS + FACTS - 2, COUNTS + FACTS - 1],
    [COUNTS + 2 * FACTS - 2, COUNTS + 2 * FACTS - 1],
    [COUNTS + 2 * FACTS + len(DIFFERENCES) - 2, COUNTS + 2 * FACTS + len(DIFFERENCES) - 1],
)
#: Disputed readings of average outcome that are added to a recognizer's in the first pass (a prior).
FIRST_LEAN = LEAN / 2


@dataclass(frozen=True)
class Evidence:
    """The features of candidates: `rows[c]` belongs to the reading of column `column[c]` in slot `slot[c]`."""

    rows: Floats
    slot: Ints
    column: Ints
    #: (candidates, columns): the columns with this reading, and those with its strongest rival.
    supporters: Flags
    opponents: Flags
    #: Per candidate: the candidate that is its rival, and whether it is a word, not "nothing".
    rival: Ints
    word: Flags


def disputed_evidence(view: View) -> Evidence:
    """The features of every reading of every disputed slot."""
    slots = np.flatnonzero(~view.network.unanimous)
    facts = Facts(view, slots)
    same = facts.key[:, :, None] == facts.key[:, None, :]
    votes = same.sum(axis=2)
    row, column = np.nonzero(~np.tril(same, -1).any(axis=2))
    against = _rivals(facts, same, votes)[row, column]
    mine, theirs = same[row, column], same[row, against]
    sides = facts.learned(
        *(np.concatenate(both) for both in ((row, row), (column, against), (against, column), (mine, theirs)))
    )
    own = np.concatenate([facts.per_column(row, mine), sides[: len(row)]], axis=1)
    other = np.concatenate([facts.per_column(row, theirs), sides[len(row) :]], axis=1)
    share = votes / same.shape[1]
    weight = facts.weight / max(facts.weight.sum(), 1e-6)
    counts = np.stack(
        [
            share[row, column], share[row, against], np.full(len(row), same.shape[1]), mine @ weight, theirs @ weight,
            facts.affinity(mine), facts.affinity(theirs),
        ],
        axis=1,
    )  # fmt: skip
    rows = np.concatenate(
        [counts, own, other, (own - other)[:, DIFFERENCES], facts.per_pair(row, column, against),
         facts.runs.slot_facts[row], facts.field(row)],
        axis=1,
        dtype=np.float32,
    )  # fmt: skip
    number = np.full(facts.key.shape, -1, dtype=np.int64)
    number[row, column] = np.arange(len(row))
    first_equal = same.argmax(axis=2)
    rival = number[row, first_equal[row, against]]
    return Evidence(rows, view.original[slots[row]], column, mine, theirs, rival, facts.key[row, column] >= 0)


def first_pass_evidence(evidence: Evidence, right: NDArray[np.float64]) -> Floats:
    """(candidates, 8): what the probabilities of a first pass (`right`, per candidate) say about the recognizers.

    The mean probability of a recognizer's disputed words, and of its disputed omissions, in the whole recording: of the
    candidate's supporters, of its rival's, and the difference; and the log odds of the candidate and of its rival.
    """
    features = []
    for kind in (evidence.word, ~evidence.word):
        readings = evidence.supporters & kind[:, None]
        mean = (right @ readings + FIRST_LEAN * 0.5) / (readings.sum(axis=0) + FIRST_LEAN)
        own, other = (
            members @ mean / np.maximum(members.sum(axis=1), 1) for members in (evidence.supporters, evidence.opponents)
        )
        features += [own, other, own - other]
    limited = np.clip(right, 1e-4, 1 - 1e-4)
    odds = np.log(limited / (1 - limited))
    return np.stack([*features, odds, odds[evidence.rival]], axis=1).astype(np.float32)


def _rivals(facts: Facts, same: Flags, votes: Ints) -> Ints:
    """(slots, columns): the column with the strongest other reading: most votes, then most probable in its sentence."""
    strength = votes + np.clip(facts.path / 100, -0.4, 0.0)
    contest = np.where(same, -np.inf, strength[:, None, :])
    rivals: Ints = contest.argmax(axis=2)
    return rivals
