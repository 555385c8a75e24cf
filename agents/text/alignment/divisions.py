"""Joins tokens that several recognizers divided differently: "4, 7, 1, 1." and "four seven eleven" become one token.

Otherwise a number of one token and the same number of four share no slot, and the result mixes both spellings: of 200
sequences of digits that both recognizers had right, 32 to 87 % came out wrong. The same is done for dates, times,
amounts, spelled letters, units and compounds; `normalisation.meaning` says what is equal.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from agents.text.alignment.network import runs
from agents.text.normalisation.meaning import has_variants, parts
from agents.text.normalisation.normalise import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Network

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

#: Slots on both sides of a dispute that are compared with it: a date or an amount contains words that all have.
CONTEXT = 6
#: Slots that are compared at once: bounds the time, which is quadratic in them.
LONGEST = 256
#: Characters of two columns, multiplied, from which they are not compared (hostile words): about a second.
MANY = 10**8


class Range(NamedTuple):
    """Tokens of one column that belong together: the positions of the first one and of the one after the last."""

    first: int
    end: int
    #: The token that they become; None if they stay tokens of one group.
    name: str | None


def divided_differently(network: Network, language: str | None) -> list[list[Range]]:
    """Per column, the ranges of tokens to join, in order, so that equal meanings become equal tokens.

    Borders between words that all columns have in common are kept; words between two such borders are joined if their
    meaning is equal, with fillers between them. Numbers that differ in value and division are joined, too: they are
    rivals as a whole. Compounds become one group of tokens: which of "pre-clinical" and "preclinical" is usual is known
    from their tokens (without regard to it, pairs on earnings calls had 1.0 % more errors).
    """
    ranges: list[list[Range]] = [[] for _ in network.columns]
    sides = [_Side(network, k) for k in range(len(network.columns))]
    for first, end in _windows(network):
        block = [side.units(first, end, language) for side in sides]
        names: dict[str, str] = {}
        for column_ranges, units in zip(ranges, _joined(block), strict=True):
            column_ranges += [
                Range(unit.first, unit.end, names.setdefault(unit.compared, unit.text) if unit.token else None)
                for unit in units
                if unit.joined
            ]
    return ranges


def joined(tokens: Tokens, ranges: Iterable[Range]) -> Tokens:
    """The tokens with each of these ranges, which are in order and disjoint, joined to one group, and to one token."""
    keys: list[str] = []
    kept: list[int] = []
    group_of = list(range(len(tokens.first_word)))
    done = 0
    for first, end, name in ranges:
        names = tokens.keys[first:end] if name is None else [name]
        keys += [*tokens.keys[done:first], *names]
        kept += [*tokens.group[done:first], *([tokens.group[first]] * len(names))]
        for group in range(tokens.group[first], tokens.group[end - 1] + 1):
            group_of[group] = group_of[tokens.group[first]]
        done = end
    keys += tokens.keys[done:]
    kept += tokens.group[done:]
    number = {group: n for n, group in enumerate(sorted(set(group_of)))}
    return Tokens(keys, [number[group_of[group]] for group in kept], [tokens.first_word[group] for group in number])


class _Unit(NamedTuple):
    """Words with one meaning, and the range of their tokens."""

    text: str
    #: The text as it is compared: the letter O and the digit 0 sound and look the same.
    compared: str
    first: int
    end: int
    #: The tokens' keys.
    keys: tuple[int, ...]
    numeric: bool
    #: Whether it is joined of several, or renamed; and whether it becomes one token.
    joined: bool = False
    token: bool = False


def _windows(network: Network) -> Iterator[tuple[int, int]]:
    """First and end (exclusive) of the runs of slots in which words may be divided differently, with their context."""
    key = np.where(np.append(network.silent, True)[network.key], -1, network.key)
    variants = np.array([*map(has_variants, network.names), False], dtype=bool)
    disputes = runs((key != key[:, :1]).any(axis=1))
    first, end = np.array(disputes, dtype=np.int64).reshape(-1, 2).T
    begin, stop = np.maximum(first - CONTEXT, 0), np.minimum(end + CONTEXT, len(key))
    varied = _count(np.logical_or.reduce(variants[network.key], axis=1), begin, stop) > 0
    begin, stop = np.where(varied, begin, first), np.where(varied, stop, end)
    # Compounds differ within the dispute.
    gap, words = _count(np.logical_or.reduce(key < 0, axis=1), first, end), _count(key >= 0, first, end)
    compound = (gap > 0) & ((words > 0).sum(axis=1) > 1)
    near = np.zeros(len(key) + 1, dtype=np.int64)
    for borders, step in ((begin, 1), (stop, -1)):
        np.add.at(near, borders[varied | compound], step)
    for first_slot, last_slot in runs(np.cumsum(near)[:-1] > 0):
        for part in range(first_slot, last_slot, LONGEST):
            yield part, min(last_slot, part + LONGEST)


def _count(flags: Flags, first: Ints, end: Ints) -> Ints:
    """The number of true flags, (slots, ...), from each first slot to each end."""
    sums = np.concatenate([np.zeros((1, *flags.shape[1:]), dtype=np.int64), np.cumsum(flags, axis=0)])
    count: Ints = sums[end] - sums[first]
    return count


class _Side:
    """One column as plain lists, on which a loop over words is faster than on arrays."""

    def __init__(self, network: Network, k: int) -> None:
        column = network.columns[k]
        self.texts = [word.text for word in column.words]
        self.key, self.group = column.key.tolist(), column.group.tolist()
        self.first, self.last = column.first.tolist(), column.last.tolist()
        #: Per slot, the number of tokens before it; per word, the number of tokens of words before it.
        self.before: list[int] = np.cumsum(np.append(0, network.grid[:, k] >= 0)).tolist()
        self.token: list[int] = np.searchsorted(column.first, np.arange(len(self.texts) + 1)).tolist()

    def units(self, first: int, end: int, language: str | None) -> list[_Unit]:
        """The units in some slots: the parts of its words, joined where a group of tokens needs it."""
        begin, stop = _whole_groups(self.group, self.before[first], self.before[end])
        if begin >= stop:
            return []
        word, after = self.first[begin], self.last[stop - 1] + 1
        units: list[_Unit] = []
        pending = ""
        opened = begin
        for part in parts(self.texts[word:after], language):
            if not pending:
                opened = self.token[word + part.first]
            pending += part.text
            high = min(self.token[word + part.end], stop)
            if high <= opened or (self.first[high] if high < stop else after) != word + part.end:
                continue  # a group of tokens goes on
            keys = tuple(self.key[opened:high])
            units.append(_Unit(pending, pending.replace("o", "0"), opened, high, keys, part.numeric))
            pending = ""
        return units


def _whole_groups(group: Sequence[int], begin: int, stop: int) -> tuple[int, int]:
    """The range without tokens of groups that are not wholly in it."""
    while 0 < begin < stop and group[begin] == group[begin - 1]:
        begin += 1
    while begin < stop < len(group) and group[stop] == group[stop - 1]:
        stop -= 1
    return begin, stop


class _Line:
    """The units of one column, with what their comparison with other columns needs."""

    def __init__(self, units: list[_Unit]) -> None:
        self.units = units
        self.keys = [unit.keys for unit in units]
        self.text = "".join([unit.compared for unit in units])
        #: The characters before each unit, and before the end; and the number of units before each of them.
        self.borders = list(itertools.accumulate([len(unit.text) for unit in units], initial=0))
        self.number = {border: n for n, border in enumerate(self.borders)}


def _joined(block: list[list[_Unit]]) -> list[list[_Unit]]:
    """The units of each column, joined until all columns have the same borders between equal meanings."""
    lines = [_Line(units) for units in block]
    pairs = list(itertools.combinations(range(len(lines)), 2))
    settled: dict[tuple[int, int], tuple[_Line, _Line]] = {}
    going = True
    while going:
        going = False
        for a, b in pairs:
            before = lines[a], lines[b]
            if settled.get((a, b)) == before:
                continue
            lines[a], lines[b] = _pair(*before)
            if lines[a] is before[0]:
                settled[a, b] = before
            else:
                going = True
    return [line.units for line in lines]


def _pair(left: _Line, right: _Line) -> tuple[_Line, _Line]:
    """The units of two columns, joined between two common borders if their meaning is equal; the same lines if none."""
    if left.keys == right.keys or len(left.text) * len(right.text) > MANY:
        return left, right
    joins = []
    m = n = 0
    for i, j in _common(left, right):
        if i - m != 1 or j - n != 1 or left.keys[m] != right.keys[n]:  # most are equal
            parts = left.units[m:i], right.units[n:j]
            if _is_one_thing(*parts):
                token = _is_token(*parts)
                wholes = [_whole(parts[0], token)], [_whole(parts[1], token)]
                if wholes != parts:
                    joins.append(((m, i), (n, j), wholes))
        m, n = i, j
    if not joins:
        return left, right
    units = list(left.units), list(right.units)
    for *places, wholes in reversed(joins):
        for side, (first, end), whole in zip(units, places, wholes, strict=True):
            side[first:end] = whole
    return _Line(units[0]), _Line(units[1])


def _is_one_thing(left: Sequence[_Unit], right: Sequence[_Unit]) -> bool:
    """Whether units of two columns mean the same in different tokens, or are numbers in different divisions."""
    if not left or not right:
        return False
    keys = [[key for unit in part for key in unit.keys] for part in (left, right)]
    if keys[0] == keys[1]:
        return False
    if "".join([u.compared for u in left]) == "".join([u.compared for u in right]):
        # Single words share a slot anyway; which of "OK" and "okay" is usual, evidence knows better.
        return len(keys[0]) + len(keys[1]) > 2 or any(unit.numeric for unit in (*left, *right))
    return len(keys[0]) != len(keys[1]) and all(unit.numeric for unit in (*left, *right))


def _is_token(left: Sequence[_Unit], right: Sequence[_Unit]) -> bool:
    """Whether units become one token: numbers, spelled letters and single words; not compounds."""
    both = (*left, *right)
    if any(unit.numeric or unit.token for unit in both):
        return True
    longer = max(left, right, key=len)
    if len(longer) == 1:
        return not any(unit.joined for unit in both)
    return 2 * sum(len(unit.text) == 1 for unit in longer) > len(longer)


def _common(left: _Line, right: _Line) -> Iterator[tuple[int, int]]:
    """The borders between units, as (index in left, in right), that are on the path of a minimal edit script between
    their texts.
    """
    borders, here, there = left.borders, left.number, right.number
    for op in Levenshtein.opcodes(left.text, right.text):
        if op.tag in {"equal", "replace"}:
            shift = op.dest_start - op.src_start
            for border in borders[bisect_right(borders, op.src_start) : bisect_left(borders, op.src_end)]:
                if border + shift in there:
                    yield here[border], there[border + shift]
        if op.src_end in here and op.dest_end in there:
            yield here[op.src_end], there[op.dest_end]


def _whole(units: Sequence[_Unit], token: bool) -> _Unit:
    keys = tuple(key for unit in units for key in unit.keys)
    numeric = any(unit.numeric for unit in units)
    text = "".join(unit.text for unit in units)
    return _Unit(text, text.replace("o", "0"), units[0].first, units[-1].end, keys, numeric, joined=True, token=token)
