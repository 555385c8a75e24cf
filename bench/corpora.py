"""The shared corpora as word networks with the right reading of every slot: what a reconciler is fitted and measured
on.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np

from agents.text.alignment.align import matches
from agents.text.alignment.build import build
from agents.text.alignment.network import Network, spoken
from agents.text.defects import without_defects
from agents.text.score import words
from schemas.words import Hypothesis, Word

#: Where the corpora lie when this work tree has its shared folder beside it.
CORPORA = Path(__file__).parents[2] / "shared" / "corpora"

#: By corpus and number of recognizers, how many sets of them are drawn for each call. Calls of `earnings21` are seven
#: times longer.
SETS = {
    "earnings21": {1: 1, 2: 9, 3: 4, 5: 1},
    "primock57": {1: 4, 2: 60, 3: 24, 4: 8, 5: 8},
}
SEED = 7

#: What `truth` says where nothing was said, and where something was said that nobody heard.
NOTHING, UNHEARD = -1, -2


@dataclass(frozen=True, eq=False)
class Call:
    """One recording: what was said, and what each recognizer heard."""

    id: str
    corpus: str
    reference: str
    hypotheses: dict[str, Hypothesis]

    @cached_property
    def said(self) -> list[str]:
        return words(self.reference)


@dataclass(frozen=True)
class Sample:
    """Some of a call's recognizers in a network, with the key of the right reading of every slot that is no filler."""

    call: int
    recognizers: tuple[str, ...]
    network: Network
    truth: np.ndarray


def load(folder: Path = CORPORA) -> list[Call]:
    """All calls, by corpus and name."""
    return [load_call(path) for path in sorted(folder.glob("*/*.json.gz"))]


def load_call(path: Path) -> Call:
    data = json.loads(gzip.decompress(path.read_bytes()))
    heard = {
        name: Hypothesis(name, tuple(Word(text, start, end) for text, start, end in said))
        for name, said in sorted(data["hypotheses"].items())
    }
    return Call(data["id"], data["corpus"], data["reference"], heard)


def drawn(calls: list[Call], numbers: Iterable[int], without: Collection[str] = (), share: float = 1.0) -> list[Sample]:
    """Random sets of the recognizers of some calls (their numbers), good with bad, the same each time. `share` draws
    fewer of them.
    """
    found = []
    for number in sorted(numbers):
        call = calls[number]
        names = sorted(call.hypotheses.keys() - set(without))
        random = Random(f"{SEED}/{call.id}")
        for size, count in SETS[call.corpus].items():
            several = range(round(count * share) if size <= len(names) else 0)
            sets = {tuple(sorted(random.sample(names, size))) for _ in several}
            found += [sample(number, call, chosen) for chosen in sorted(sets)]
    return found


def sample(number: int, call: Call, names: tuple[str, ...]) -> Sample:
    kept, _ = without_defects([call.hypotheses[name] for name in names])
    network = build(kept)
    return Sample(number, names, network, truth(network, call.said))


def truth(network: Network, said: list[str]) -> np.ndarray:
    """Per slot the key of what was said there: the reference aligned to the network with the fewest errors."""
    known = {name: number for number, name in enumerate(network.names)}
    reference = np.array([known.get(word, len(known) + 1) for word in said], dtype=np.int64)
    words_only, slots = spoken(network)
    key = words_only.key
    answer = np.full(len(network.grid), NOTHING, dtype=np.int64)
    agreed = np.where(words_only.unanimous, key[:, 0], len(known) + 2) if len(key) else np.zeros(0, dtype=np.int64)
    here, there = matches(agreed, reference)
    sure = _middle_of_runs(here, there)
    found = np.full(len(key), NOTHING, dtype=np.int64)
    found[here[sure]] = reference[there[sure]]
    ends_here = np.concatenate([[-1], here[sure], [len(key)]])
    ends_there = np.concatenate([[-1], there[sure], [len(reference)]])
    for left in np.flatnonzero((np.diff(ends_here) > 1) & (np.diff(ends_there) > 1)):
        part = slice(ends_here[left] + 1, ends_here[left + 1])
        found[part] = _cheapest(key[part], reference[ends_there[left] + 1 : ends_there[left + 1]])
    answer[slots] = np.where(found >= len(known), UNHEARD, found)
    return answer


def _middle_of_runs(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Matches with a match on either side: not by chance."""
    joined = (np.diff(here) == 1) & (np.diff(there) == 1)
    if not len(here):
        return np.zeros(0, dtype=bool)
    return np.concatenate([[False], joined]) & np.concatenate([joined, [False]])


def _cheapest(key: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Per slot of a stretch the reference word it stands for, or NOTHING: fewest errors if the best readings are
    chosen.
    """
    slots, length = len(key), len(reference)
    skip = np.where((key < 0).any(axis=1), 0, 1)
    miss = (key[:, :, None] != reference).all(axis=1).astype(np.int64)
    column = np.arange(length + 1)
    cost = np.empty((slots + 1, length + 1), dtype=np.int64)
    cost[0] = column
    for slot in range(slots):
        step = cost[slot] + skip[slot]
        step[1:] = np.minimum(step[1:], cost[slot, :-1] + miss[slot])
        cost[slot + 1] = np.minimum.accumulate(step - column) + column
    answer = np.full(slots, NOTHING, dtype=np.int64)
    slot, place = slots, length
    while slot > 0:
        if place > 0 and cost[slot, place] == cost[slot - 1, place - 1] + miss[slot - 1, place - 1]:
            slot, place = slot - 1, place - 1
            answer[slot] = reference[place]
        elif cost[slot, place] == cost[slot - 1, place] + skip[slot - 1]:
            slot -= 1
        else:
            place -= 1
    return answer
