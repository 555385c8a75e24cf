"""How likely each reading of each slot is right, given everything heard: fitted by bench/fit_reconciler.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.text.network import Network

    Floats = NDArray[np.float64]

#: First estimates, until the fitted ones: a word that all heard, and one that nobody else heard.
UNANIMOUS, ALONE = 0.96, 0.55


def probabilities(network: Network) -> Floats:
    """(slots, columns): the probability that what a recognizer has in a slot, a token or nothing, is right.

    Equal readings have equal probabilities; those of the different readings of a slot add up to 1 at most.
    """
    key = network.key
    votes = (key[:, :, None] == key[:, None, :]).sum(axis=2)
    share = votes / key.shape[1]
    certain = _confidences(network)
    weight = share * np.where(key >= 0, ALONE, 1 - ALONE) * np.where(np.isnan(certain), 0.8, certain)
    best = np.where(key[:, :, None] == key[:, None, :], weight[:, None, :], 0).max(axis=2)
    chance = 0.9 * best / (best / votes).sum(axis=1, keepdims=True)
    return np.where(network.unanimous[:, None], UNANIMOUS, chance)


def _confidences(network: Network) -> Floats:
    """(slots, columns): the recognizer's own confidence in its token; NaN where it has none or does not say."""
    picked = np.full(network.grid.shape, np.nan)
    for k, column in enumerate(network.columns):
        said = np.array([np.nan if word.confidence is None else word.confidence for word in column.words])
        there = network.grid[:, k] >= 0
        picked[there, k] = said[column.first[network.grid[there, k]]]
    return picked
