"""Decides in whose spelling something is written on which recognizers agree: "$2.35" or "two dollars 35 cents"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from agents.text.alignment.network import runs
from agents.text.normalisation.english import LINKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Column, Network

    Ints = NDArray[np.int64]

#: "recognizer": numbers of the whole call in the spelling of the recognizer that uses the fewest words for them (with
#: the best punctuated one's, pairs on earnings calls had 0.5 % more errors). "figures" and "words": each number in the
#: spelling of a recognizer that wrote it so, if one did.
Spelling = Literal["recognizer", "figures", "words"]

#: Words that some recognizers join, by the letters of the usual spelling, which is taken if one of them has it. Which
#: one a recognizer writes is its style, and says nothing about what was said. References are no guide: consultations
#: have "alright" 54 times and "all right" 61 times, mostly one of the two in a call.
UNUSUAL = {"alright": "allright"}


def number_writers(network: Network, order: Sequence[int], spelling: Spelling) -> list[int | None]:
    """Per slot, the column in whose spelling a number is written, None where there is no number.

    Words between the parts of a number, as the month in a date, have the same writer. Of equally suitable columns, the
    first in `order` is taken.
    """
    writers: list[int | None] = [None] * len(network.grid)
    digit, link = _marked(network, _has_digit), _marked(network, LINKS.__contains__)
    agreed = digit & network.unanimous
    if not agreed.any():
        return writers
    if spelling == "recognizer":
        cost = network.pick([column.last - column.first + 1 for column in network.columns], 0)
    else:
        cost = network.pick(list(map(_spelled, network.columns)), 0) * (1 if spelling == "figures" else -1)
    cost[~agreed] = 0
    whole = cost.sum(axis=0).tolist()
    for first, end in runs(digit | link):
        if digit[first:end].any():
            total = whole if spelling == "recognizer" else cost[first:end].sum(axis=0).tolist()
            writers[first:end] = [min(order, key=total.__getitem__)] * (end - first)
    return writers


def _marked(network: Network, test: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Per slot: whether a token passes a test."""
    passing = np.array([*map(test, network.names), False], dtype=bool)
    marked: NDArray[np.bool_] = np.logical_or.reduce(passing[network.key], axis=1)
    return marked


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


def _spelled(column: Column) -> Ints:
    """Per token, its words without digits."""
    before = np.cumsum([0, *(not _has_digit(word.text) for word in column.words)])
    counts: Ints = before[column.last + 1] - before[column.first]
    return counts
