"""Aligns several token sequences into one grid: one column per sequence, equal tokens in the same row, rows in order.

Two steps. Myers' bit-parallel Levenshtein (RapidFuzz) finds the runs of tokens that all sequences share; those are the
anchors. The small regions between anchors are aligned by similarity of spelling and by time, one sequence after the
other (progressive alignment, as in NIST's ROVER: Fiscus 1997). Regions of similar size are computed together.
"""

from __future__ import annotations

import itertools
from array import array
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import JaroWinkler, Levenshtein
from rapidfuzz.process import cpdist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]
    Flags = NDArray[np.bool_]

#: Cost of a token that is alone in its row; two of them cost more than any substitution.
GAP = 0.62
#: Cost of a substitution of tokens whose spellings have nothing in common, and of nearly equal ones.
FAR, NEAR = 1.0, 0.25
#: Milliseconds between two tokens from which their substitution costs `LATE` more; less for smaller distances.
LATE_MS, LATE = 2000.0, 0.5
#: Tokens of the longest side of a region that is aligned as a whole; longer regions are cut.
LONGEST = 48
#: Sequences up to which every pair is compared to select the first column; with more, only pairs with the first one.
MANY = 6
#: Table cells that are computed at once: bounds memory.
CELLS = 400_000


def align(
    sequences: Sequence[Ints],
    names: Sequence[str],
    times: Sequence[Floats] | None = None,
    apart: Flags | None = None,
) -> Ints:
    """The grid (rows, sequences) of positions in each sequence, -1 where it has no token in the row.

    `sequences` contain indexes into `names`; `times` the middle of each token in ms, NaN if unknown; `apart` marks the
    names that never share a row with the others (fillers and punctuation). Every position occurs once, in order. The
    result depends on the order of the sequences, so this order must not depend on their recognizers.
    """
    pairs: Iterable[tuple[int, int]] = itertools.combinations(range(len(sequences)), 2)
    if len(sequences) > MANY:
        pairs = ((0, k) for k in range(1, len(sequences)))
    equal = {(i, j): matches(sequences[i], sequences[j]) for i, j in pairs}
    columns = _ranked(sequences, equal)
    anchors = _anchors(sequences, columns[0], equal)[:, columns]
    ordered = [sequences[k] for k in columns]
    starts = np.vstack([np.full((1, len(columns)), -1), anchors]) + 1
    ends = np.vstack([anchors, [len(sequence) for sequence in ordered]])
    starts, ends, origin = _cut(starts, ends)
    price = _Price(names, np.zeros(len(names), dtype=bool) if apart is None else apart)
    rows, region = _fill(ordered, price, [times[k] for k in columns] if times else None, starts, ends)
    key = np.concatenate([np.arange(len(anchors)) * 2 + 1, origin[region] * 2])
    grid = np.vstack([anchors, rows])[np.argsort(key, kind="stable")]
    return grid[:, np.argsort(columns)]


def matches(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Positions of the equal tokens in a minimal edit script from `a` to `b`."""
    blocks = [
        (op.src_start, op.dest_start, op.src_end - op.src_start)
        for op in Levenshtein.opcodes(array("q", a.tobytes()), array("q", b.tobytes()))
        if op.tag == "equal"
    ]
    starts = np.array(blocks, dtype=np.int64).reshape(-1, 3)
    offset = _ramp(starts[:, 2])
    return np.repeat(starts[:, 0], starts[:, 2]) + offset, np.repeat(starts[:, 1], starts[:, 2]) + offset


def _ranked(sequences: Sequence[Ints], equal: dict[tuple[int, int], tuple[Ints, Ints]]) -> list[int]:
    """Indexes of the sequences, the one with the most tokens equal to others' first."""
    agreed = [sum(len(left) for ij, (left, _) in equal.items() if k in ij) for k in range(len(sequences))]
    return sorted(range(len(sequences)), key=lambda k: -agreed[k])


def _anchors(sequences: Sequence[Ints], centre: int, equal: dict[tuple[int, int], tuple[Ints, Ints]]) -> Ints:
    """Rows in which all sequences have the same token, without isolated ones within a dispute."""
    table = np.full((len(sequences[centre]), len(sequences)), -1, dtype=np.int64)
    table[:, centre] = np.arange(len(sequences[centre]))
    for (i, j), (left, right) in equal.items():
        if i == centre:
            table[left, j] = right
        elif j == centre:
            table[right, i] = left
    anchors = table[(table >= 0).all(axis=1)]
    return anchors[_strong(anchors, [len(sequence) for sequence in sequences])]


def _strong(anchors: Ints, lengths: list[int]) -> Flags:
    """Which anchors are next to another one. An isolated one may be chance; it stays if regions would be too long."""
    if not len(anchors):
        return np.zeros(0, dtype=bool)
    joined = (np.diff(anchors, axis=0) == 1).all(axis=1)
    strong: Flags = np.concatenate([[False], joined]) | np.concatenate([joined, [False]])
    fence = np.vstack([[-1] * anchors.shape[1], anchors[strong], lengths])
    wide = np.asarray((np.diff(fence, axis=0) > LONGEST // 2).any(axis=1))
    strong |= wide[np.searchsorted(fence[:, 0], anchors[:, 0], side="right") - 1]
    return strong


def _cut(starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """Starts and ends of non-empty regions, long ones cut in proportion; and each one's index before cutting."""
    sizes = ends - starts
    keep = sizes.max(axis=1) > 0
    origin = np.flatnonzero(keep)
    starts, sizes = starts[keep], sizes[keep]
    counts = np.where((sizes > 0).sum(axis=1) > 1, -(-sizes.max(axis=1) // LONGEST), 1)
    if (counts == 1).all():
        return starts, starts + sizes, origin
    repeat = np.repeat(np.arange(len(counts)), counts)
    part, parts = _ramp(counts)[:, None], counts[repeat][:, None]
    first = starts[repeat] + sizes[repeat] * part // parts
    last = starts[repeat] + sizes[repeat] * (part + 1) // parts
    return first, last, origin[repeat]


def _fill(
    sequences: Sequence[Ints], price: _Price, times: Sequence[Floats] | None, starts: Ints, ends: Ints
) -> tuple[Ints, Ints]:
    """The rows of all regions in order, and the region of each."""
    width = len(sequences)
    sizes = ends - starts
    region = np.repeat(np.arange(len(starts)), sizes[:, 0])
    rows = np.full((len(region), width), -1, dtype=np.int64)
    rows[:, 0] = starts[region, 0] + _ramp(sizes[:, 0])
    for column in range(1, width):
        rows, region = _add(rows, region, column, sequences, price, times, starts[:, column], sizes[:, column])
    return rows, region


def _add(
    rows: Ints, region: Ints, column: int, sequences: Sequence[Ints], price: _Price,
    times: Sequence[Floats] | None, start: Ints, size: Ints,
) -> tuple[Ints, Ints]:  # fmt: skip
    """Align one more sequence to the rows of every region."""
    have = np.bincount(region, minlength=len(size)).astype(np.int64)
    first_row = np.cumsum(have) - have
    new_row: list[Ints] = []
    new_token: list[Ints] = []
    new_region: list[Ints] = []

    alone = np.flatnonzero((have == 0) | (size == 0))
    for count, first, target, other in ((have, first_row, new_row, new_token), (size, start, new_token, new_row)):
        owner = np.repeat(alone, count[alone])
        target.append(first[owner] + _ramp(count[alone]))
        other.append(np.full(len(owner), -1, dtype=np.int64))
        new_region.append(owner)

    both = np.flatnonzero((have > 0) & (size > 0))
    level = np.ceil(np.log2(np.maximum(have[both], size[both]))).astype(np.int64)
    for bucket in np.unique(level).tolist():
        members = both[level == bucket]
        batch = max(1, CELLS >> (2 * bucket))
        for part in range(0, len(members), batch):
            some = members[part : part + batch]
            cost = _costs(rows, column, sequences, price, times, first_row[some], have[some], start[some], size[some])
            owner, row, token = _trace(cost, have[some], size[some])
            new_row.append(np.where(row >= 0, first_row[some][owner] + row, -1))
            new_token.append(np.where(token >= 0, start[some][owner] + token, -1))
            new_region.append(some[owner])

    row, token, owner = np.concatenate(new_row), np.concatenate(new_token), np.concatenate(new_region)
    order = np.argsort(owner, kind="stable")
    row, token, owner = row[order], token[order], owner[order]
    grown = np.where((row >= 0)[:, None], rows[row], -1) if len(rows) else np.full((len(row), rows.shape[1]), -1)
    grown[:, column] = token
    return grown, owner


def _costs(
    rows: Ints, column: int, sequences: Sequence[Ints], price: _Price, times: Sequence[Floats] | None,
    first_row: Ints, have: Ints, start: Ints, size: Ints,
) -> Floats:  # fmt: skip
    """Cost (regions, rows, tokens) of placing a token in a row: the lowest cost of a substitution with a token that is
    already in it. The cost of padding is 0.
    """
    side_a, side_b = int(have.max()), int(size.max())
    cost = np.zeros((len(have), side_a, side_b), dtype=np.float32)
    r, i, j = np.nonzero((np.arange(side_a) < have[:, None])[:, :, None] & (np.arange(side_b) < size[:, None])[:, None])
    row, token = first_row[r] + i, start[r] + j
    best = np.full(len(r), np.inf, dtype=np.float32)
    for before in range(column):
        at = rows[row, before]
        there = np.flatnonzero(at >= 0)
        substitution = price(sequences[before][at[there]], sequences[column][token[there]])
        if times is not None:
            late = np.abs(times[before][at[there]] - times[column][token[there]])
            substitution = substitution + LATE * np.nan_to_num(np.minimum(late / LATE_MS, 1.0))
        best[there] = np.minimum(best[there], substitution)
    cost[r, i, j] = best
    return cost


class _Price:
    """The cost of placing one token in the row of another, without regard to time."""

    def __init__(self, names: Sequence[str], apart: Flags) -> None:
        self.names, self.apart = names, apart

    def __call__(self, a: Ints, b: Ints) -> Floats:
        """0 for equal tokens, `NEAR` to `FAR` by similarity of spelling, more than two gaps for tokens kept apart."""
        size = len(self.names)
        pairs, back = np.unique(np.minimum(a, b) * size + np.maximum(a, b), return_inverse=True)
        left, right = pairs // size, pairs % size
        written = [self.names[k] for k in left.tolist()], [self.names[k] for k in right.tolist()]
        alike = cpdist(*written, scorer=JaroWinkler.normalized_similarity)
        price = np.where(left == right, 0.0, FAR - (FAR - NEAR) * alike)
        price[self.apart[left] != self.apart[right]] = 3 * GAP
        return price.astype(np.float32)[back.ravel()]


def _trace(cost: Floats, have: Ints, size: Ints) -> tuple[Ints, Ints, Ints]:
    """The cheapest paths through all tables: (region, row or -1, token or -1) of every step, in order."""
    count, side_a, side_b = cost.shape
    total = np.empty((count, side_a + 1, side_b + 1), dtype=np.float32)
    total[:, :, 0] = np.arange(side_a + 1) * GAP
    total[:, 0, :] = np.arange(side_b + 1) * GAP
    for diagonal in range(2, side_a + side_b + 1):
        i = np.arange(max(1, diagonal - side_b), min(side_a, diagonal - 1) + 1)
        j = diagonal - i
        aside = np.minimum(total[:, i - 1, j], total[:, i, j - 1]) + np.float32(GAP)
        total[:, i, j] = np.minimum(total[:, i - 1, j - 1] + cost[:, i - 1, j - 1], aside)

    every = np.arange(count)
    i, j = have.copy(), size.copy()
    steps = []
    while every.size:
        both = (i > 0) & (j > 0)
        here = total[every, i, j]
        diagonal_cost = total[every, i - both, j - both] + cost[every, np.maximum(i - 1, 0), np.maximum(j - 1, 0)]
        diagonal_step = both & (here >= diagonal_cost - 1e-4)
        up = ~diagonal_step & (i > 0) & ((j == 0) | (here >= total[every, i - (i > 0), j] + GAP - 1e-4))
        move_i, move_j = diagonal_step | up, diagonal_step | ~up
        i, j = i - move_i, j - move_j
        steps.append(np.stack([every, np.where(move_i, i, -1), np.where(move_j, j, -1)]))
        going = (i > 0) | (j > 0)
        every, i, j = every[going], i[going], j[going]
    path = np.concatenate(steps[::-1], axis=1)
    path = path[:, np.argsort(path[0], kind="stable")]
    return path[0], path[1], path[2]


def _ramp(counts: Ints) -> Ints:
    """For each count n the numbers 0 to n-1, concatenated."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
