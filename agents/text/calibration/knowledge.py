"""Statistics about words, recognizers and fields of speech from the fit's corpora, and their use for one call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.text.calibration.ngrams import NGrams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Network

#: The name of the n-grams of general English.
GENERAL = "general"
#: Word error rates of families of recognizers, by the beginning of their names, the longer first: those that are in the
#: box, on the same twelve clips (`python -m bench.default_pair`). Only their order and ratio matter.
FAMILIES = {"whisper-tiny": 0.171, "whisper-base": 0.143, "moonshine-base": 0.126}
#: The lowest word error rate that is taken at its word.
LOWEST_RATE = 0.01
#: Disputes with the average outcome that are added to those of a word (a prior).
LEAN = 8.0
#: The influence of a call's words on the weights of fields, and the least weight of a field.
FOCUS, LEAST = 12.0, 0.03


@dataclass(frozen=True)
class Knowledge:
    """Statistics from before this recording. Any entry may be missing."""

    #: By word: its Zipf frequency (log10 of occurrences in 10^9 words).
    frequency: Mapping[str, float] = field(default_factory=dict)
    #: A model of general English, and by field of speech one of its transcripts.
    general: NGrams = field(default_factory=NGrams)
    fields: Mapping[str, NGrams] = field(default_factory=dict)
    #: By field of speech, then by "kind word" or "kind word|other word": in how many disputes such a reading was right,
    #: and in how many it occurred; "kind" alone is the total. Fields also differ in the spelling of their references
    #: ("OK", "okay").
    words: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    #: By field, then by word: log of how much more common it is there than elsewhere.
    topics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: By recognizer, then by "kind", "kind class" or "kind word": log odds of being right in a dispute.
    record: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: By kind of dispute, the intercept and slope of those log odds over the log of a recognizer's word error rate.
    rate_odds: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def past(self, provider: str) -> Mapping[str, float] | None:
        """The record of a recognizer, or what its family's word error rate lets expect; None if both are unknown."""
        if provider in self.record or not self.rate_odds:
            return self.record.get(provider)
        rate = next((rate for family, rate in FAMILIES.items() if provider.startswith(family)), None)
        return None if rate is None else self._expected(rate)

    def with_rates(self, rates: Mapping[str, float]) -> Knowledge:
        """The same, with what these word error rates (0 to 1, by recognizer) let expect in place of a record."""
        if not rates or not self.rate_odds:
            return self
        return replace(self, record={**self.record, **{name: self._expected(rate) for name, rate in rates.items()}})

    def _expected(self, rate: float) -> dict[str, float]:
        limited = math.log(min(max(rate, LOWEST_RATE), 1.0))
        return {kind: start + slope * limited for kind, (start, slope) in self.rate_odds.items()}

    def other_language(self, frequency: Mapping[str, float]) -> Knowledge:
        """What is known of words in another language than English: their frequency."""
        return Knowledge(frequency, topics={name: {} for name in self.topics}, words={name: {} for name in self.words})

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON, without the n-grams."""
        return {
            "frequency": dict(self.frequency),
            "words": {topic: {key: list(value) for key, value in table.items()} for topic, table in self.words.items()},
            "topics": {topic: dict(table) for topic, table in self.topics.items()},
            "rate_odds": {kind: list(line) for kind, line in self.rate_odds.items()},
            "record": {name: dict(past) for name, past in self.record.items()},
        }

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The n-grams, by "model/part"."""
        models = {GENERAL: self.general, **self.fields}
        return {key: value for name, model in models.items() for key, value in model.arrays(name).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Knowledge:
        """The inverse of `to_json` and `arrays`."""
        fields = {name: NGrams.from_arrays(name, arrays) for name in data["topics"]}
        general = NGrams.from_arrays(GENERAL, arrays)
        return cls(data["frequency"], general, fields, data["words"], data["topics"], data["record"], data["rate_odds"])


class Topic:
    """The field of a call, as the weights of all known fields, and the statistics about words in it."""

    def __init__(self, weights: Mapping[str, float], knowledge: Knowledge) -> None:
        self.weights = weights
        self._tables = [(weight, knowledge.words[name]) for name, weight in weights.items()]
        self._usual = {kind: self._counted(kind) for kind in ("s", "i", "d", "a")}
        self._known: dict[str, tuple[float, float]] = {}

    def odds(self, key: str) -> tuple[float, float]:
        """Log odds that such a reading is right, close to the average if it is rare; and log(1 + its occurrences).

        (NaN, 0) if it never occurred. `key` is one of `Knowledge.words`.
        """
        odds = self._known.get(key)
        if odds is None:
            odds = self._known[key] = self._odds(key)
        return odds

    def _odds(self, key: str) -> tuple[float, float]:
        right, total = self._counted(key)
        if not total:
            return np.nan, 0.0
        usual, every = self._usual[key[0]]
        share = (right + LEAN * (usual + 1.0) / (every + 2.0)) / (total + LEAN)
        return math.log(share / (1 - share)), math.log1p(total)

    def _counted(self, key: str) -> tuple[float, float]:
        right = total = 0.0
        for weight, table in self._tables:
            counts = table.get(key)
            if counts is not None:
                right += weight * counts[0]
                total += weight * counts[1]
        return right, total


def topic(network: Network, knowledge: Knowledge) -> Topic:
    """The field of a call, from its unanimous words."""
    agreed = network.key[network.unanimous, 0]
    count = np.bincount(agreed, minlength=len(network.names)) if len(agreed) else np.zeros(len(network.names))
    scores = []
    for table in knowledge.topics.values():
        score = np.array([table.get(name, 0.0) for name in network.names])
        scores.append(float((score * count).sum()) / (float(count.sum()) + 100.0))
    weight = np.exp(FOCUS * np.array(scores)) if scores else np.zeros(0)
    weight = np.maximum(weight / max(weight.sum(), 1e-9), LEAST)
    return Topic(dict(zip(knowledge.topics, weight.tolist(), strict=True)), knowledge)
