"""The word network: the tokens of all hypotheses of one recording, aligned in slots, with their original words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agents.text.normalisation.normalise import Tokens
    from schemas.words import Hypothesis, Word

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """One recognizer's tokens in the network."""

    hypothesis: Hypothesis
    #: The words that are not blank.
    words: tuple[Word, ...]
    tokens: Tokens
    #: Per token: its index in the network's names; its group; the first and the last word of that group.
    key: Ints
    group: Ints
    first: Ints
    last: Ints
    #: Per token: start and end of its words in ms, NaN if unknown.
    start: Floats
    end: Floats


@dataclass(frozen=True)
class Network:
    """Slots in order. `grid[slot, column]` is the position of a recognizer's token in its column, -1 for none."""

    columns: tuple[Column, ...]
    names: list[str]
    #: Per name: whether it is a filler, punctuation or a note, which scores ignore.
    silent: NDArray[np.bool_]
    grid: Ints

    @cached_property
    def key(self) -> Ints:
        """(slots, columns): index of the token in `names`, -1 for none."""
        return self.pick([column.key for column in self.columns], -1)

    @cached_property
    def unanimous(self) -> NDArray[np.bool_]:
        """Per slot: whether all recognizers have the same token."""
        same: NDArray[np.bool_] = (self.key == self.key[:, :1]).all(axis=1)
        return same

    @cached_property
    def plain(self) -> NDArray[np.bool_]:
        """Per slot: whether every token is that of a single word."""
        one = self.pick([(column.first == column.last).astype(np.int64) for column in self.columns], 1)
        plain: NDArray[np.bool_] = (one == 1).all(axis=1)
        return plain

    @cached_property
    def segment(self) -> Ints:
        """Per slot: its segment. A segment is the fewest slots that contain only whole words of every recognizer."""
        slots = len(self.grid)
        open_ = np.zeros(slots + 1, dtype=np.int64)
        for k, column in enumerate(self.columns):
            at = np.flatnonzero(self.grid[:, k] >= 0)
            joined = np.flatnonzero(np.diff(column.group) == 0)
            np.add.at(open_, at[joined] + 1, 1)
            np.add.at(open_, at[joined + 1] + 1, -1)
        inside = np.cumsum(open_)[:slots] > 0
        return np.cumsum(~inside) - 1

    def pick(self, values: Sequence[Ints], missing: int) -> Ints:
        """(slots, columns): the value of each token, `missing` where a column has none. `values` are by column."""
        picked = np.full(self.grid.shape, missing, dtype=np.int64)
        for k, value in enumerate(values):
            there = self.grid[:, k] >= 0
            picked[there, k] = value[self.grid[there, k]]
        return picked


def language(hypotheses: Sequence[Hypothesis]) -> str | None:
    """The language tag of most hypotheses, in which all of them are tokenised; None if there is none."""
    tags = sorted(h.language for h in hypotheses if h.language)
    return max(tags, key=tags.count) if tags else None


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and end (exclusive) of every run of true flags, in order."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def spoken(network: Network) -> tuple[Network, Ints]:
    """The network without fillers and punctuation, which never share a slot with words; and its original slots."""
    keep = [~network.silent[column.key] for column in network.columns]
    columns = tuple(
        dataclasses.replace(
            column, **{name: getattr(column, name)[kept] for name in ("key", "group", "first", "last", "start", "end")}
        )
        for column, kept in zip(network.columns, keep, strict=True)
    )
    grid = network.pick([np.where(kept, np.cumsum(kept) - 1, -1) for kept in keep], -1)
    slots = np.flatnonzero((grid >= 0).any(axis=1))
    return Network(columns, network.names, network.silent, grid[slots]), slots
