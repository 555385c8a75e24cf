"""Runs of consecutive disputed slots: how long they are, and how each column's text in them compares."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from agents.text.alignment.network import runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.text.alignment.network import Network

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]

#: Tokens of a run whose letters are compared, at most.
COMPARED = 40
#: Tokens between two equal ones up to which the second is a repetition, and between three equal ones in a row.
REPETITION, COPY = 12, 400


class Runs:
    """The runs of consecutive disputed slots: their lengths, their tokens by column, and the disputes around them."""

    def __init__(self, network: Network, slots: Ints) -> None:
        self.network = network
        disputed = (~network.unanimous).astype(np.int64)
        first, end = np.array(runs(~network.unanimous), dtype=np.int64).reshape(-1, 2).T
        run = np.searchsorted(first, slots, side="right") - 1
        tokens = np.vstack([np.zeros((1, network.grid.shape[1]), dtype=np.int64), np.cumsum(network.grid >= 0, axis=0)])
        #: Per slot, the number of its run.
        self.number = run
        #: (slots, columns): the positions of a column's first token in the run and of the first one after it.
        self.begin, self.end = tokens[first][run], tokens[end][run]
        #: (slots, columns): the number of a column's tokens in the run.
        self.tokens = within = self.end - self.begin
        #: (slots, columns): the number of a column's tokens in the run, less the average of all columns.
        self.own = within - within.mean(axis=1, keepdims=True)
        length = (end - first)[run]
        disputes = np.concatenate([[0], np.cumsum(disputed)])
        around = [
            (disputes[np.minimum(slots + reach + 1, len(disputed))] - disputes[np.maximum(slots - reach, 0)] - length)
            / (2 * reach)
            for reach in (6, 25)
        ]
        share = disputed.mean() if len(disputed) else 0.0
        segment = np.bincount(network.segment)[network.segment[slots]] if len(slots) else np.zeros(0)
        #: (slots, 8): length of the run, position in it, mean number of tokens in it, share of disputed slots nearby,
        #: in a wider range, and in the recording, length of the segment, position in the recording (0 to 1).
        self.slot_facts = np.stack(
            [length, slots - first[run], within.mean(axis=1), *around, np.full(len(slots), share), segment,
             slots / max(len(disputed), 1)],
            axis=1,
        ).astype(np.float32)  # fmt: skip

    def repetition(self) -> tuple[Floats, Floats]:
        """(slots, columns), twice: the share of a column's tokens in the run that it also has shortly before, and the
        share of those at which three tokens begin that it also has elsewhere nearby: text that it wrote twice.
        """
        shape = (len(self.number), len(self.network.columns))
        repeated, copied = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        for k, column in enumerate(self.network.columns):
            key, begin, end = column.key, self.begin[:, k], self.end[:, k]
            repeated[:, k] = _share(again(key, REPETITION)[0], begin, end)
            second, first = again(triples(key, len(self.network.names) + 1), COPY)
            copied[:, k] = _share(np.append(second | first, [False, False]), begin, end)
        return repeated, copied

    def similarity(self, slot: Ints, column: Ints, against: Ints) -> Floats:
        """The similarity, 0 to 1, of the letters of two columns in the run of a slot; NaN if one of them has none."""
        width = len(self.network.columns)
        cases, back = np.unique((self.number[slot] * width + column) * width + against, return_inverse=True)
        letters, run = cache(self._letters), (cases // width**2).tolist()
        left, right = (list(map(letters, run, k.tolist())) for k in (cases // width % width, cases % width))
        if not left:
            return np.zeros(0, dtype=np.float32)
        alike = np.asarray(cpdist(left, right, scorer=Levenshtein.normalized_similarity), dtype=np.float32)
        alike[[not (a and b) for a, b in zip(left, right, strict=True)]] = np.nan
        return alike[back]

    def _letters(self, run: int, k: int) -> str:
        slot = np.searchsorted(self.number, run)
        begin, end = self.begin[slot, k], self.end[slot, k]
        names = self.network.names
        return "".join(names[key] for key in self.network.columns[k].key[begin : min(end, begin + COMPARED)].tolist())


def triples(key: Ints, size: int) -> Ints:
    """A number for each three tokens in a row; `size` is more than every token."""
    return (key[:-2] * size + key[1:-1]) * size + key[2:]


def again(key: Ints, reach: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which elements are equal to one at most `reach` before them, and which to one after them."""
    second, first = np.zeros(len(key), dtype=bool), np.zeros(len(key), dtype=bool)
    order = np.argsort(key, kind="stable")
    near = (np.diff(key[order]) == 0) & (np.diff(order) <= reach)
    second[order[1:][near]] = True
    first[order[:-1][near]] = True
    return second, first


def _share(flags: NDArray[np.bool_], begin: Ints, end: Ints) -> Floats:
    """The share of flags from each begin to each end."""
    total = np.concatenate([[0.0], np.cumsum(flags)])
    last = len(flags)
    share: Floats = (total[np.minimum(end, last)] - total[np.minimum(begin, last)]) / np.maximum(end - begin, 1)
    return share
