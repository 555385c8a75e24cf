"""Features of unanimous words, from which the trees compute their probabilities. Most such words are right, not all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Network
    from agents.text.calibration.facts import View
    from agents.text.calibration.language import Language

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]

#: The index of the recognizers' record in a row.
RECORD = 7


def agreed_evidence(view: View) -> tuple[Floats, Ints]:
    """The features of all unanimous words, (words, features), and their slots: how common and how expected they are,
    and the disputes around them.
    """
    network, knowledge, language, length = view.network, view.knowledge, view.language, view.length
    slots = np.flatnonzero(network.unanimous)
    key = network.key[slots, 0]
    prior = np.array([*(view.topic.odds(f"a {name}") for name in network.names), (np.nan, 0.0)])
    digit = np.array([*(any(map(str.isdigit, name)) for name in network.names), False])
    around = np.concatenate([[-1, -1], network.key[:, 0], [-1, -1]])
    records = [(knowledge.past(column.hypothesis.provider) or {}).get("a", np.nan) for column in network.columns]
    table = [
        language.zipf[key], length[key], digit[key], np.log1p(np.bincount(key, minlength=1)[key]),
        prior[key, 0], prior[key, 1], np.full(len(slots), len(network.columns)), np.full(len(slots), _mean(records)),
        *(language.zipf[around[slots + 2 + step]] for step in (-1, 1)),
        *(key == around[slots + 2 + step] for step in (-2, -1, 1, 2)),
        *_expected(network, language, slots), *_disputes_around(network, slots), _letter_speed(view, slots),
    ]  # fmt: skip
    rows = np.stack([np.asarray(column, dtype=np.float32) for column in table], axis=1)
    return rows, view.original[slots]


def _expected(network: Network, language: Language, slots: Ints) -> list[Floats]:
    """How expected, unanimous words and the words after them are in the first column."""
    if not len(slots):
        return [np.zeros(0, dtype=np.float32)] * 2
    column, at = network.columns[0], network.grid[slots, 0]
    general = language.expected(column, np.arange(len(column.key)))[1]
    return [general[at], general[np.minimum(at + 1, len(column.key) - 1)]]


def _disputes_around(network: Network, slots: Ints) -> list[Floats]:
    """Numbers of disputed slots in four ranges, their share of the recording, and the distances to the nearest ones."""
    disputed = (~network.unanimous).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(disputed)])
    near = [
        sums[np.minimum(slots + reach + 1, len(disputed))] - sums[np.maximum(slots - reach, 0)]
        for reach in (1, 3, 10, 40)
    ]
    where = np.concatenate([[-1000], np.flatnonzero(disputed), [len(disputed) + 1000]])
    following = np.searchsorted(where, slots)
    share = np.full(len(slots), disputed.mean() if len(disputed) else 0.0)
    return [*near, share, np.minimum(slots - where[following - 1], 50), np.minimum(where[following] - slots, 50)]


def _letter_speed(view: View, slots: Ints) -> Floats:
    """Mean milliseconds per letter of the words in some slots, over the recognizers with times; NaN without."""
    total, timed = np.zeros(len(slots)), np.zeros(len(slots))
    for k, column in enumerate(view.network.columns):
        at = view.network.grid[slots, k]
        spoken_ms = (column.end[at] - column.start[at]) / np.maximum(view.length[column.key[at]], 1)
        total += np.nan_to_num(spoken_ms)
        timed += ~np.isnan(spoken_ms)
    return np.where(timed > 0, total / np.maximum(timed, 1), np.nan).astype(np.float32)


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not np.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else np.nan
