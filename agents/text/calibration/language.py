"""How expected a token is after those before it: in general English, in transcripts, and in this call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.text.alignment.network import Column, Network
    from agents.text.calibration.knowledge import Knowledge

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]


class Language:
    """How expected the tokens of one network are after those before them."""

    def __init__(self, network: Network, knowledge: Knowledge) -> None:
        self.network, self.knowledge, self.names = network, knowledge, network.names
        frequencies = (knowledge.frequency.get(name, 0.0) for name in self.names)
        #: Per name, its Zipf frequency; 0 for an unknown word, NaN for "nothing".
        self.zipf = np.array([*frequencies, np.nan], dtype=np.float32)
        counts = np.array([*(knowledge.domain.get(name, 0.0) for name in self.names), 0.0])
        general = 10.0 ** (np.maximum(np.nan_to_num(self.zipf), 1.0) - 9)
        #: Per name, its probability in transcripts.
        self.common = 0.8 * counts / max(knowledge.domain.get("", 0.0), 1.0) + 0.2 * general

    def bigram(self, column: Column, at: Ints) -> Floats:
        """log10 P(token | previous token) of a column's tokens at these positions; from frequency for unknown pairs."""
        before = np.where(at > 0, column.key[at - 1], -1)
        pairs, back = np.unique(before * (len(self.names) + 1) + column.key[at], return_inverse=True)
        bigrams, names = self.knowledge.bigrams, self.names
        values = []
        for pair in pairs.tolist():
            left, right = divmod(pair, len(names) + 1)
            value = bigrams.get(f"{names[left]} {names[right]}") if left >= 0 else None
            values.append(max(self.zipf[right], 1.0) - 9.5 if value is None else value)
        return np.array(values, dtype=np.float32)[back.ravel()]

    def domain(self, column: Column, at: Ints) -> Floats:
        """log10 P(token | two previous tokens) in transcripts, interpolated with shorter contexts and frequency
        (Jelinek and Mercer 1980).
        """
        count, keys = self.knowledge.domain.get, column.key
        if not count(""):
            return np.zeros(len(at), dtype=np.float32)
        one = self.common[keys[at]].tolist()
        names = [".", ".", *map(self.names.__getitem__, keys.tolist())]  # two for the beginning of the recording
        values = []
        for t, p in zip(at.tolist(), one, strict=True):
            a, b, c = names[t : t + 3]
            p = (count(f"{b} {c}", 0.0) + 20.0 * p) / (count(b, 0.0) + 20.0)
            if n := count(f"{a} {b}", 0.0):
                p = (count(f"{a} {b} {c}", 0.0) + 4.0 * p) / (n + 4.0)
            values.append(p)
        return np.log10(np.maximum(np.array(values, dtype=np.float32), 1e-9))

    def call(self, column: Column, at: Ints) -> Floats:
        """log(1 + n), where n is how often these two tokens follow each other unanimously in this recording."""
        width = len(self.names) + 1
        agreed = self.network.key[:, 0]
        unanimous = self.network.unanimous
        together = unanimous[1:] & unanimous[:-1]
        pairs, count = np.unique(agreed[:-1][together] * width + agreed[1:][together], return_counts=True)
        before = np.where(at > 0, column.key[at - 1], 0)
        pair = before * width + column.key[at]
        if not len(pairs):
            return np.zeros(len(at), dtype=np.float32)
        index = np.minimum(np.searchsorted(pairs, pair), len(pairs) - 1)
        return np.log1p(np.where(pairs[index] == pair, count[index], 0)).astype(np.float32)
