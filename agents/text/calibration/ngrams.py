"""Models of three words in a row with backoff (Katz 1987), as sorted arrays: thousands of look-ups in a millisecond."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

#: What stands before the first word of a text.
START = "."
#: Steps of a log10 that are kept in one byte: an error of 0.02.
STEPS = 25.0


def _none() -> Ints:
    return np.zeros(0, dtype=np.int64)


def _zero() -> Bytes:
    return np.zeros(0, dtype=np.uint8)


@dataclass(frozen=True)
class NGrams:
    """How probable a word is after one and two others. All log10 are kept as `round(-25 * log10)`, at most 255.

    A key of two words is `first * size + second`, of three `(first * size + second) * size + third`, in order.
    """

    words: tuple[str, ...] = ()
    #: Per word: its probability alone, and the factor with which words that do not follow it are backed off.
    one: Bytes = field(default_factory=_zero)
    one_backoff: Bytes = field(default_factory=_zero)
    #: Per two words in a row: key, probability of the second after the first, backoff factor.
    pairs: Ints = field(default_factory=_none)
    two: Bytes = field(default_factory=_zero)
    two_backoff: Bytes = field(default_factory=_zero)
    #: Per three words in a row: key, probability of the third after the others.
    triples: Ints = field(default_factory=_none)
    three: Bytes = field(default_factory=_zero)
    #: log10 of the factor for words that this model does not know.
    unknown: float = 0.0

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def ids(self, names: Iterable[str]) -> Ints:
        """The number of each word in this model, -1 for an unknown one."""
        number = self._index.get
        return np.array([number(name, -1) for name in names], dtype=np.int64)

    def alone(self, ids: Ints, rare: Floats) -> Floats:
        """log10 P(word); `rare` plus the factor for unknown words."""
        if not len(self.words):
            return rare + np.float32(self.unknown)
        return np.where(ids >= 0, _log(self.one[ids]), rare + np.float32(self.unknown))

    def score(self, first: Ints, second: Ints, third: Ints, rare: Floats) -> Floats:
        """log10 P(third | first, second) of words by their numbers; `rare` is the log10 P of an unknown third word."""
        size, known = len(self.words), third >= 0
        alone = self.alone(third, rare)
        if not size:
            return alone
        at, there = _find(self.pairs, second * size + third, (second >= 0) & known)
        backoff = np.where(second >= 0, _log(self.one_backoff[second]), 0)
        after_one = np.where(there, _log(self.two[at]), alone + backoff)
        context = first * size + second
        before, follows = _find(self.pairs, context, (first >= 0) & (second >= 0))
        backed_off = after_one + np.where(follows, _log(self.two_backoff[before]), 0)
        at, there = _find(self.triples, context * size + third, follows & known)
        return np.where(there, _log(self.three[at]), backed_off).astype(np.float32)

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """What a file of arrays keeps of this model, by "name/part". Keys are kept as their differences."""
        text = np.frombuffer("\n".join(self.words).encode(), dtype=np.uint8)
        return {
            f"{name}/words": text, f"{name}/one": self.one, f"{name}/one_backoff": self.one_backoff,
            f"{name}/pairs": np.diff(self.pairs, prepend=0), f"{name}/two": self.two,
            f"{name}/two_backoff": self.two_backoff, f"{name}/triples": np.diff(self.triples, prepend=0),
            f"{name}/three": self.three, f"{name}/unknown": np.array([self.unknown], dtype=np.float64),
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, name: str, data: Mapping[str, NDArray[np.generic]]) -> NGrams:
        """The inverse of `arrays`."""

        def part(key: str) -> NDArray[Any]:
            return data[f"{name}/{key}"]

        return cls(
            tuple(part("words").tobytes().decode().split("\n")), part("one"), part("one_backoff"),
            np.cumsum(part("pairs")), part("two"), part("two_backoff"), np.cumsum(part("triples")), part("three"),
            float(part("unknown")[0]),
        )  # fmt: skip


def quantised(log10: NDArray[np.floating]) -> Bytes:
    """Logarithms as `NGrams` keeps them."""
    return np.clip(np.round(-STEPS * np.asarray(log10)), 0, 255).astype(np.uint8)


def _log(values: Bytes) -> Floats:
    return values.astype(np.float32) / np.float32(-STEPS)


def _find(keys: Ints, wanted: Ints, valid: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.bool_]]:
    """Where each key is, and whether it is there."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    # In their order, look-ups find the processor's cache warm: less than half of the time.
    order = np.argsort(wanted)
    at = np.empty(len(wanted), dtype=np.int64)
    at[order] = np.minimum(np.searchsorted(keys, wanted[order]), len(keys) - 1)
    return at, valid & (keys[at] == wanted)
