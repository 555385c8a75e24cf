"""Gradient-boosted trees evaluated with numpy alone, for a few thousand rows in some milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: What stands for an unknown value: below everything known, so a tree can tell it apart.
UNKNOWN = -9999.0
#: More leaves than this no tree has.
LEAVES = 32
#: Rows evaluated at once, so that what a tree needs stays in the processor's cache.
BATCH = 4096


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

    def probability(self, rows: Floats) -> NDArray[np.float64]:
        """Per row (rows, features; NaN where unknown) the probability."""
        values = np.ascontiguousarray(np.nan_to_num(rows, nan=UNKNOWN, posinf=-UNKNOWN, neginf=UNKNOWN).T)
        total = np.full(len(rows), self.start)
        for first in range(0, len(rows), BATCH):
            part = values[:, first : first + BATCH]
            # Buffers, because a new array for every step of every tree takes twice the time.
            shape = (LEAVES, part.shape[1])
            value, right, struck = np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, np.uint32)
            for tree in self.trees:
                nodes = len(tree.feature)
                np.take(part, tree.feature, axis=0, out=value[:nodes], mode="clip")
                np.greater(value[:nodes], tree.threshold[:, None], out=right[:nodes])
                np.multiply(right[:nodes], ~tree.keep[:, None], out=struck[:nodes])
                gone = np.bitwise_or.reduce(struck[:nodes], axis=0)
                leaf = np.frexp(((gone + np.uint32(1)) & ~gone).astype(np.float32))[1] - 1
                total[first : first + BATCH] += tree.leaves[leaf]
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
