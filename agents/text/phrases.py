"""Keeps the words of a dispute together: several words are those of one recognizer, unless mixing surely pays.

Each slot's most probable reading by itself makes text that nobody said ("bakers street" of "bakers treat" and "Baker
Street"). A dispute is a run of slots that are not unanimous, between two that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agents.text.alignment.network import runs
from schemas.texts import is_unspaced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.text.alignment.network import Network

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: Expected word errors that mixing must avoid in a dispute: of two recognizers, and of more, where a mixture is mostly
#: what several of them have. With the lower one, held-out sets of three and five have 0.2 to 0.5 % fewer errors, and
#: mix in 14 and 12 % of the disputes of several words instead of 8 and 6 %.
MARGIN, MARGIN_OF_SEVERAL = 0.25, 0.1
#: In scripts without spaces, where the tokens are characters: by how much a reading must be more probable than that of
#: the recognizer that is the most probable in the whole recording. Over six Chinese and Japanese recordings, the result
#: had 840 errors by disputes alone, and 805 with this; 800 are those of the better recognizer of each.
CHARACTER_MARGIN = 0.5


@dataclass(frozen=True, slots=True)
class Disputes:
    """The disputes of more than one slot: their first slots, and the ones after their last."""

    first: Ints
    end: Ints

    @classmethod
    def of(cls, network: Network) -> Disputes:
        """Those of a network, in order."""
        several = [(first, end) for first, end in runs(~network.unanimous) if end - first > 1]
        return cls(*np.array(several, dtype=np.int64).reshape(-1, 2).T)

    def total(self, values: NDArray[np.generic]) -> Floats:
        """The sums of `values`, (slots, ...), over each dispute."""
        sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0, dtype=np.float64)])
        total: Floats = sums[self.end] - sums[self.first]
        return total


def preferred(network: Network, chance: Floats) -> Flags:
    """(slots, columns): the readings of the recognizer from which a whole dispute is taken; none where mixing pays.

    `chance` (slots, columns) is the probability that a reading is right.
    """
    if _unspaced(network):
        return _of_leader(network, chance)
    disputes = Disputes.of(network)
    result = np.zeros(chance.shape, dtype=bool)
    if not len(disputes.first):
        return result
    alone = disputes.total(chance)
    margin = MARGIN if chance.shape[1] == 2 else MARGIN_OF_SEVERAL
    together = disputes.total(chance.max(axis=1)) - alone.max(axis=1) < margin
    best = alone.argmax(axis=1)
    for first, end, column in zip(disputes.first[together], disputes.end[together], best[together], strict=True):
        key = network.key[first:end]
        result[first:end] = key == key[:, column, None]
    return result


def _unspaced(network: Network) -> bool:
    """Whether most tokens are characters of a script without spaces."""
    names = [name for name in network.names if name[0].isalnum()]
    return 2 * sum(map(is_unspaced, (name[0] for name in names))) > len(names)


def _of_leader(network: Network, chance: Floats) -> Flags:
    """The readings of the recognizer that is the most probable in all disputes, where no other is much more so."""
    leader = chance[~network.unanimous].sum(axis=0).argmax()
    unsure = chance.max(axis=1) - chance[:, leader] <= CHARACTER_MARGIN
    leading: Flags = (network.key == network.key[:, leader, None]) & unsure[:, None]
    return leading


def mixed(network: Network, chosen: Ints) -> tuple[int, int]:
    """The number of disputes of several slots, and of those whose result is that of no single recognizer.

    `chosen` is, per slot, the column whose reading was chosen.
    """
    disputes = Disputes.of(network)
    if not len(disputes.first):
        return 0, 0
    key = network.key
    result = key[np.arange(len(key)), chosen][:, None]
    differing = disputes.total(key != result)
    return len(disputes.first), int((differing > 0).all(axis=1).sum())
