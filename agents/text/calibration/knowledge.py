"""What was learned before a recording about words, recognizers and fields of speech, and how it applies to one call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agents.text.alignment.network import Network

#: How many imagined disputes, with the usual outcome, are added to those of a word.
LEAN = 8.0
#: How sharply a call's words tell its field, and the least weight of any field.
FOCUS, LEAST = 12.0, 0.03


@dataclass(frozen=True)
class Knowledge:
    """What was learned before this recording. Anything may be missing."""

    #: Word to Zipf frequency (log10 of occurrences in 10^9 words).
    frequency: Mapping[str, float] = field(default_factory=dict)
    #: "previous word" to log10 probability of the word after the previous one, in general English.
    bigrams: Mapping[str, float] = field(default_factory=dict)
    #: The same counted in transcripts: how often one, two or three words in a row.
    domain: Mapping[str, float] = field(default_factory=dict)
    #: Per field that calls can be about, "kind word" or "kind word|other word" to how often such a reading was right,
    #: of how many; "kind" alone is the usual. Fields also differ in how their references are written ("OK", "okay").
    words: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    #: Per field, word to how much more common it is there than elsewhere, log.
    topics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: "recognizer", then "kind", "kind class" or "kind word" to the log odds of being right in a dispute.
    record: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Maps whose keys are several words are nested by their first part, which halves the file."""
        return {
            "frequency": dict(self.frequency),
            "bigrams": _nested(self.bigrams),
            "domain": _nested(self.domain),
            "words": {topic: {key: list(value) for key, value in table.items()} for topic, table in self.words.items()},
            "topics": {topic: dict(table) for topic, table in self.topics.items()},
            "record": {name: dict(past) for name, past in self.record.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Knowledge:
        bigrams, domain = _flat(data["bigrams"]), _flat(data["domain"])
        return cls(data["frequency"], bigrams, domain, data["words"], data["topics"], data["record"])


class Topic:
    """What a call is about, as the weight of every known field, and what is known about words there."""

    def __init__(self, weights: Mapping[str, float], knowledge: Knowledge) -> None:
        self.weights = weights
        self._tables = [(weight, knowledge.words[name]) for name, weight in weights.items()]
        self._usual = {kind: self._counted(kind) for kind in ("s", "i", "d", "a")}

    def known(self, key: str) -> tuple[float, float]:
        """Log odds that such a reading is right, leaning on the usual while there is little evidence; and the evidence,
        log(1 + n).
        """
        right, total = self._counted(key)
        if not total:
            return np.nan, 0.0
        usual, every = self._usual[key[0]]
        share = (right + LEAN * (usual + 1.0) / (every + 2.0)) / (total + LEAN)
        return math.log(share / (1 - share)), math.log1p(total)

    def _counted(self, key: str) -> tuple[float, float]:
        right = total = 0.0
        for weight, table in self._tables:
            found = table.get(key)
            if found is not None:
                right += weight * found[0]
                total += weight * found[1]
        return right, total


def topic(network: Network, knowledge: Knowledge) -> Topic:
    """The field of a call, by the words that all recognizers heard."""
    agreed = network.key[network.unanimous, 0]
    count = np.bincount(agreed, minlength=len(network.names)) if len(agreed) else np.zeros(len(network.names))
    scores = []
    for table in knowledge.topics.values():
        score = np.array([table.get(name, 0.0) for name in network.names])
        scores.append(float((score * count).sum()) / (float(count.sum()) + 100.0))
    weight = np.exp(FOCUS * np.array(scores)) if scores else np.zeros(0)
    weight = np.maximum(weight / max(weight.sum(), 1e-9), LEAST)
    return Topic(dict(zip(knowledge.topics, weight.tolist(), strict=True)), knowledge)


def _nested(flat: Mapping[str, float]) -> dict[str, dict[str, float]]:
    nested: dict[str, dict[str, float]] = {}
    for key, value in flat.items():
        head, _, rest = key.rpartition(" ")
        nested.setdefault(head, {})[rest] = value
    return nested


def _flat(nested: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{head} {rest}" if head else rest: value for head, part in nested.items() for rest, value in part.items()}
