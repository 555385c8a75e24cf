"""Gradient-boosted trees evaluated with numpy alone, for a few thousand rows in some milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: What stands for an unknown value: below everything known, so a tree can tell it apart.
UNKNOWN = -9999.0
#: More leaves than this no tree has.
LEAVES = 32
#: Rows times trees evaluated at once: so many that numpy's overhead is small beside the work, so few that what they
#: need stays in the processor's cache.
BATCH = 8192


@dataclass(frozen=True)
class Tree:
    """One tree of at most 32 leaves, as in QuickScorer (Lucchese et al. 2015).

    A node whose test `value > threshold` holds strikes out the leaves to its left: it keeps the bits in `keep`. After
    all nodes, the first leaf that is left is the one the row falls in.
    """

    feature: NDArray[np.int64]
    threshold: Floats
    keep: NDArray[np.uint32]
    leaves: Floats


@dataclass(frozen=True)
class Trees:
    """A sum of trees that gives the log odds of something."""

    start: float
    trees: tuple[Tree, ...]

    @cached_property
    def _stacked(self) -> tuple[NDArray[np.int64], Floats, NDArray[np.uint32], Floats]:
        """All trees as one: features, thresholds and struck leaves (tree, node), leaves (tree, leaf); filled up with
        nodes that strike nothing.
        """
        shape = (len(self.trees), LEAVES)
        feature, threshold = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        struck, leaves = np.zeros(shape, np.uint32), np.zeros(shape, np.float32)
        for at, tree in enumerate(self.trees):
            nodes = len(tree.feature)
            feature[at, :nodes], threshold[at, :nodes], struck[at, :nodes] = tree.feature, tree.threshold, ~tree.keep
            leaves[at, : len(tree.leaves)] = tree.leaves
        used = max((len(tree.feature) for tree in self.trees), default=0)
        return feature[:, :used], threshold[:, :used], struck[:, :used], leaves

    def probability(self, rows: Floats) -> NDArray[np.float64]:
        """Per row (rows, features; NaN where unknown) the probability."""
        values = np.ascontiguousarray(np.nan_to_num(rows, nan=UNKNOWN, posinf=-UNKNOWN, neginf=UNKNOWN).T)
        feature, threshold, struck, leaves = self._stacked
        total = np.full(len(rows), self.start)
        for first in range(0, len(rows), BATCH):
            part = values[:, first : first + BATCH]
            together = max(1, BATCH // part.shape[1])
            for tree in range(0, len(self.trees), together):
                some = slice(tree, tree + together)
                right = part[feature[some]] > threshold[some, :, None]
                gone = np.bitwise_or.reduce(right * struck[some, :, None], axis=1)
                leaf = np.frexp(((gone + np.uint32(1)) & ~gone).astype(np.float32))[1] - 1
                total[first : first + BATCH] += np.take_along_axis(leaves[some], leaf, axis=1).sum(axis=0)
        odds: NDArray[np.float64] = 1 / (1 + np.exp(-total))
        return odds

    def to_json(self) -> dict[str, Any]:
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
