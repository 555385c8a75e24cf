"""How expected a token is after those before it: in general English, in transcripts, and in this call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agents.text.calibration.ngrams import START

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Column, Network
    from agents.text.calibration.knowledge import Knowledge

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]

#: log10 of the probability of a number, and of the least frequent word.
NUMBER, RARE = -3.0, -8.5
#: Tokens of the recording from which the weights of the models are estimated, at most, and the rounds of estimation.
SAMPLE, ROUNDS = 3000, 8


def rare(names: Sequence[str], zipf: Sequence[float] | Floats) -> Floats:
    """log10 of the probability of words that are in no n-gram, from their Zipf frequency; of numbers, the same."""
    digits = np.array([any(map(str.isdigit, name)) for name in names], dtype=bool)
    return np.where(digits, NUMBER, np.maximum(np.asarray(zipf) - 9, RARE)).astype(np.float32)


class Language:
    """How expected the tokens of one network are after those before them."""

    def __init__(self, network: Network, knowledge: Knowledge) -> None:
        self.network, self.names = network, network.names
        frequencies = (knowledge.frequency.get(name, 0.0) for name in self.names)
        #: Per name, its Zipf frequency; 0 for an unknown word, NaN for "nothing".
        self.zipf = np.array([*frequencies, np.nan], dtype=np.float32)
        self.models = [knowledge.general, *knowledge.fields.values()]
        self.ids = [np.append(model.ids(self.names), model.ids([START])) for model in self.models]
        uncommon = rare(self.names, np.nan_to_num(self.zipf[:-1]))
        #: log10 of the probability of each name in general English, to which all models back off.
        self.alone = np.append(knowledge.general.alone(self.ids[0][:-1], uncommon), np.float32(0))
        self.weights = self._weights()

    def _scores(self, key: Ints, at: Ints) -> Floats:
        """(models, tokens): log10 of the probability of the tokens at these positions in each model."""
        padded = np.concatenate([[-1, -1], key])
        a, b, c = padded[at], padded[at + 1], padded[at + 2]
        return np.stack(
            [model.score(ids[a], ids[b], ids[c], self.alone[c])
             for model, ids in zip(self.models, self.ids, strict=True)]
        )  # fmt: skip

    def _weights(self) -> Floats:
        """The share of each model, by expectation maximisation over the words that all recognizers have."""
        share = np.full(len(self.models), 1 / len(self.models))
        key = self.network.key[self.network.unanimous, 0]
        if not len(key):
            return share
        at = np.arange(len(key))[:: 1 + len(key) // SAMPLE]
        p = 10.0 ** self._scores(key, at)
        for _ in range(ROUNDS):
            part = share[:, None] * p
            share = (part / part.sum(axis=0)).sum(axis=1) + 5.0
            share = share / share.sum()
        return share

    def expected(self, column: Column, at: Ints) -> Floats:
        """(2, tokens): log10 P(token | two previous tokens) in general English, and in speech like that of this call
        (Jelinek and Mercer 1980).
        """
        scores = self._scores(column.key, at)
        mixed = (self.weights[:, None] * 10.0**scores).sum(axis=0)
        return np.stack([scores[0], np.log10(np.maximum(mixed, 1e-10)).astype(np.float32)])

    def call(self, column: Column, at: Ints) -> Floats:
        """(1, tokens): log(1 + n), where n is how often these two tokens follow each other unanimously in the call."""
        width = len(self.names) + 1
        agreed = self.network.key[:, 0]
        unanimous = self.network.unanimous
        together = unanimous[1:] & unanimous[:-1]
        pairs, count = np.unique(agreed[:-1][together] * width + agreed[1:][together], return_counts=True)
        before = np.where(at > 0, column.key[at - 1], 0)
        pair = before * width + column.key[at]
        if not len(pairs):
            return np.zeros((1, len(at)), dtype=np.float32)
        index = np.minimum(np.searchsorted(pairs, pair), len(pairs) - 1)
        return np.log1p(np.where(pairs[index] == pair, count[index], 0)).astype(np.float32)[None]
