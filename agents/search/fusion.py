"""Makes one list of several (reciprocal rank fusion: Cormack, Clarke and Büttcher, 2009)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.search.chunks import ChunkKey

#: How little the first places of a list are worth beside its others.
K: Final = 60


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage in the list of all."""

    key: ChunkKey
    score: float
    #: The lists that have it, by name, in order.
    found_by: tuple[str, ...]


def fused(lists: Mapping[str, Sequence[ChunkKey]]) -> list[Ranked]:
    """All passages of these lists, best first: those that are far up in several."""
    scores: defaultdict[ChunkKey, float] = defaultdict(float)
    found_by: defaultdict[ChunkKey, list[str]] = defaultdict(list)
    for name, keys in lists.items():
        for place, key in enumerate(keys, 1):
            scores[key] += 1 / (K + place)
            found_by[key].append(name)
    ranked = [Ranked(key, score, tuple(found_by[key])) for key, score in scores.items()]
    return sorted(ranked, key=lambda one: (-one.score, one.key))
