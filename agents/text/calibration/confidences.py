"""The influence of recognizers' own confidences, as far as they prove to mean something in this recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.text.alignment.network import Network

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: The share of a confidence's log odds, relative to their average, that moves the log odds of a word: what is assumed,
#: how sure that is (the standard deviation), and the most.
TRUST, UNSURE, MOST_TRUST = 0.5, 0.25, 1.5
#: The average log odds start at `USUAL` with the weight of `WEIGHT` words; relative ones are limited to `MOST`.
USUAL, WEIGHT, MOST = 2.0, 20.0, 3.0
#: Rounds of Newton's method, its longest step (without, it overshoots where confidences and agreement hang together
#: without exception, to the wrong sign), and the strength of a prior that keeps its intercept finite.
ROUNDS, STEP, RIDGE = 25, 0.5, 0.01


def shifts(network: Network) -> Floats:
    """(slots, columns): by how much a confidence raises the log odds of a token; NaN without a confidence.

    The corpora of the fit have no confidences. So what they mean is estimated in each recording: how much more often
    other recognizers have the same word where a recognizer is more confident (logistic regression). It is assumed until
    there is evidence.
    """
    result = np.full(network.grid.shape, np.nan)
    key = network.key
    for k, column in enumerate(network.columns):
        confidence = np.array([np.nan if word.confidence is None else word.confidence for word in column.words])
        reported = ~np.isnan(confidence)
        if not reported.any():
            continue
        limited = np.clip(confidence, 0.001, 0.999)
        odds = np.log(limited / (1 - limited))
        usual = (odds[reported].sum() + USUAL * WEIGHT) / (reported.sum() + WEIGHT)
        there = network.grid[:, k] >= 0
        relative = np.clip(odds - usual, -MOST, MOST)[column.first[network.grid[there, k]]]
        agreed = (key[there] == key[there, k][:, None]).sum(axis=1) > 1
        known = ~np.isnan(relative)
        result[there, k] = relative * (_slope(relative[known], agreed[known]) if key.shape[1] > 1 else TRUST)
    return result


def _slope(values: Floats, agreed: NDArray[np.bool_]) -> float:
    """How much the log odds of being agreed with rise with a value, from 0 to `MOST_TRUST`."""
    rows = np.stack([values, np.ones(len(values))])
    prior, strength = np.array([TRUST, 0.0]), np.array([1 / UNSURE**2, RIDGE])
    weights = np.array([TRUST, 1.0])
    for _ in range(ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(weights @ rows, -30, 30)))
        gradient = rows @ (agreed - chance) - strength * (weights - prior)
        curvature = (rows * (chance * (1 - chance))) @ rows.T + np.diag(strength)
        weights = weights + np.clip(np.linalg.solve(curvature, gradient), -STEP, STEP)
    return float(np.clip(weights[0], 0.0, MOST_TRUST))
