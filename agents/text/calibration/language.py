"""How expected a token is after those before it: in general English, in transcripts, in this call."""

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
    """How well tokens follow those before them: in general, in transcripts, in this call."""

    def __init__(self, network: Network, knowledge: Knowledge) -> None:
        self.network, self.knowledge, self.names = network, knowledge, network.names
        known = (knowledge.frequency.get(name, 0.0) for name in self.names)
        #: Per name, Zipf frequency; 0 for a word that is not in the list, NaN for "nothing".
        self.zipf = np.array([*known, np.nan], dtype=np.float32)
        said = np.array([*(knowledge.domain.get(name, 0.0) for name in self.names), 0.0])
        general = 10.0 ** (np.maximum(np.nan_to_num(self.zipf), 1.0) - 9)
        #: Per name, the probability of it among the words of transcripts.
        self.common = 0.8 * said / max(knowledge.domain.get("", 0.0), 1.0) + 0.2 * general

    def bigram(self, column: Column, at: Ints) -> Floats:
        """log10 P(token | token before), backing off to frequency."""
        before = np.where(at > 0, column.key[at - 1], -1)
        pairs, back = np.unique(before * (len(self.names) + 1) + column.key[at], return_inverse=True)
        known, names = self.knowledge.bigrams, self.names
        values = []
        for pair in pairs.tolist():
            left, right = divmod(pair, len(names) + 1)
            value = known.get(f"{names[left]} {names[right]}") if left >= 0 else None
            values.append(max(self.zipf[right], 1.0) - 9.5 if value is None else value)
        return np.array(values, dtype=np.float32)[back.ravel()]

    def domain(self, column: Column, at: Ints) -> Floats:
        """log10 P(token | two before) in transcripts, interpolated (Jelinek and Mercer 1980) down to frequency."""
        count, keys = self.knowledge.domain.get, column.key
        if not count(""):
            return np.zeros(len(at), dtype=np.float32)
        one = self.common[keys[at]].tolist()
        names = [".", ".", *map(self.names.__getitem__, keys.tolist())]  # two that stand for the silence before
        values = []
        for t, p in zip(at.tolist(), one, strict=True):
            a, b, c = names[t : t + 3]
            p = (count(f"{b} {c}", 0.0) + 20.0 * p) / (count(b, 0.0) + 20.0)
            if n := count(f"{a} {b}", 0.0):
                p = (count(f"{a} {b} {c}", 0.0) + 4.0 * p) / (n + 4.0)
            values.append(p)
        return np.log10(np.maximum(np.array(values, dtype=np.float32), 1e-9))

    def call(self, column: Column, at: Ints) -> Floats:
        """How often a token follows the one before where all agree in this recording, log(1 + n)."""
        width = len(self.names) + 1
        agreed = self.network.key[:, 0]
        sure = self.network.unanimous
        together = sure[1:] & sure[:-1]
        seen, count = np.unique(agreed[:-1][together] * width + agreed[1:][together], return_counts=True)
        before = np.where(at > 0, column.key[at - 1], 0)
        wanted = before * width + column.key[at]
        if not len(seen):
            return np.zeros(len(at), dtype=np.float32)
        where = np.minimum(np.searchsorted(seen, wanted), len(seen) - 1)
        return np.log1p(np.where(seen[where] == wanted, count[where], 0)).astype(np.float32)
