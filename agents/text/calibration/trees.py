"""Evaluates gradient-boosted trees with numpy alone: some milliseconds for a few thousand rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: Replaces unknown values: less than all others, so that a tree can distinguish it.
UNKNOWN = -9999.0
#: Leaves of a tree, at most.
LEAVES = 32
#: Rows times trees that are evaluated at once: enough that numpy's overhead is small, and few enough that the arrays
#: fit in the processor's cache.
BATCH = 8192


@dataclass(frozen=True)
class Tree:
    """One tree of at most 32 leaves, as in QuickScorer (Lucchese et al. 2015).

    A node whose test `value > threshold` is true excludes the leaves to its left: it keeps those whose bits are set in
    `keep`. The row belongs to the first leaf that no node excludes.
    """

    feature: NDArray[np.int64]
    threshold: Floats
    keep: NDArray[np.uint32]
    leaves: Floats


@dataclass(frozen=True)
class Trees:
    """A sum of trees whose value is the log odds of an event."""

    start: float
    trees: tuple[Tree, ...]

    @cached_property
    def _stacked(self) -> tuple[NDArray[np.int64], Floats, NDArray[np.uint32], Floats]:
        """Features, thresholds and excluded leaves by (tree, node), and leaves by (tree, leaf), of all trees; padded
        with nodes that exclude nothing.
        """
        shape = (len(self.trees), LEAVES)
        feature, threshold = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        excluded, leaves = np.zeros(shape, np.uint32), np.zeros(shape, np.float32)
        for at, tree in enumerate(self.trees):
            nodes = len(tree.feature)
            feature[at, :nodes], threshold[at, :nodes], excluded[at, :nodes] = tree.feature, tree.threshold, ~tree.keep
            leaves[at, : len(tree.leaves)] = tree.leaves
        used = max((len(tree.feature) for tree in self.trees), default=0)
        return feature[:, :used], threshold[:, :used], excluded[:, :used], leaves

    def probability(self, rows: Floats) -> NDArray[np.float64]:
        """The probability per row. `rows` is (rows, features), NaN for unknown values."""
        values = np.ascontiguousarray(np.nan_to_num(rows, nan=UNKNOWN, posinf=-UNKNOWN, neginf=UNKNOWN).T)
        feature, threshold, excluded, leaves = self._stacked
        total = np.full(len(rows), self.start)
        for first in range(0, len(rows), BATCH):
            part = values[:, first : first + BATCH]
            together = max(1, BATCH // part.shape[1])
            for tree in range(0, len(self.trees), together):
                some = slice(tree, tree + together)
                right = part[feature[some]] > threshold[some, :, None]
                bits = np.bitwise_or.reduce(right * excluded[some, :, None], axis=1)
                leaf = np.frexp(((bits + np.uint32(1)) & ~bits).astype(np.float32))[1] - 1
                total[first : first + BATCH] += np.take_along_axis(leaves[some], leaf, axis=1).sum(axis=0)
        odds: NDArray[np.float64] = 1 / (1 + np.exp(-total))
        return odds

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON, rounded."""
        return {
            "start": self.start,
            "trees": [
                [t.feature.tolist(), [float(f"{x:.6g}") for x in t.threshold.tolist()], t.keep.tolist(),
                 [round(x, 5) for x in t.leaves.tolist()]]
                for t in self.trees
            ],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trees:
        """The inverse of `to_json`."""
        return cls(
            data["start"],
            tuple(
                Tree(
                    np.array(feature, dtype=np.int64),
                    np.array(threshold, dtype=np.float32),
                    np.array(keep, dtype=np.uint32),
                    np.array(leaves, dtype=np.float32),
                )
                for feature, threshold, keep, leaves in data["trees"]
            ),
        )
