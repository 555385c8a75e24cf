"""Computes the probability that each reading of each slot is right. Fitted by `bench/fit_reconciler.py`."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.text.alignment.network import language
from agents.text.calibration.agreed import agreed_evidence
from agents.text.calibration.confidences import shifts
from agents.text.calibration.evidence import disputed_evidence, first_pass_evidence
from agents.text.calibration.facts import View
from agents.text.calibration.knowledge import Knowledge
from agents.text.calibration.trees import Trees
from agents.text.frequency import frequencies
from agents.text.spoken_language import primary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agents.text.alignment.network import Network
    from agents.text.calibration.evidence import Evidence

    Floats = NDArray[np.float64]

#: Probabilities of a filler that no recognizer and that all recognizers have; it is kept if more than half have it.
FILLER = (0.05, 0.95)
#: The files of the calibration beside this module.
TREES, NGRAMS = "calibration.json.gz", "ngrams.npz"
#: The highest probability of a reading; the lowest is one minus this.
SUREST = 0.9995


@dataclass(frozen=True)
class Passes:
    """Two passes over the readings of disputed slots. The first shows how right each recognizer is in this recording as
    a whole; the second has this as evidence, too. Over pairs of recognizers that the fit had not seen, the second pass
    makes a gain of 4.0 % one of 4.8 %, and the worst pair 5 % worse than its better recognizer instead of 11 %.
    """

    first: Trees
    second: Trees

    def probability(self, evidence: Evidence) -> Floats:
        """The probability of each reading to be right."""
        right = self.first.probability(evidence.rows)
        return self.second.probability(np.concatenate([evidence.rows, first_pass_evidence(evidence, right)], axis=1))


@dataclass(frozen=True)
class Calibration:
    """The fitted parameters and their origin."""

    knowledge: Knowledge
    #: For readings of disputed slots, with two recognizers and with more.
    pair: Passes
    several: Passes
    #: For unanimous words.
    agreed: Trees
    #: The fit's corpora, date, command and figures.
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def with_rates(self, rates: Mapping[str, float]) -> Calibration:
        """The same, for recognizers whose word error rates (0 to 1, by name) somebody states."""
        return replace(self, knowledge=self.knowledge.with_rates(rates))


@cache
def shipped() -> Calibration:
    """The calibration that is part of Concord."""
    folder = Path(__file__).parent
    return load(folder.joinpath(TREES).read_bytes(), folder.joinpath(NGRAMS).read_bytes())


def load(trees: bytes, ngrams: bytes) -> Calibration:
    """A calibration from the bytes of its two files."""
    content = json.loads(gzip.decompress(trees))
    with np.load(io.BytesIO(ngrams)) as arrays:
        knowledge = Knowledge.from_json(content["knowledge"], arrays)
    pair, several = (Passes(*map(Trees.from_json, content[name])) for name in ("pair", "several"))
    return Calibration(knowledge, pair, several, Trees.from_json(content["agreed"]), content["provenance"])


def dump(calibration: Calibration) -> tuple[bytes, bytes]:
    """The bytes of a calibration's two files: the same for the same parameters."""
    content = {
        "provenance": dict(calibration.provenance),
        "knowledge": calibration.knowledge.to_json(),
        "pair": [calibration.pair.first.to_json(), calibration.pair.second.to_json()],
        "several": [calibration.several.first.to_json(), calibration.several.second.to_json()],
        "agreed": calibration.agreed.to_json(),
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    arrays = io.BytesIO()
    np.savez_compressed(arrays, allow_pickle=False, **calibration.knowledge.arrays())
    return gzip.compress(text, 9, mtime=0), arrays.getvalue()


def probabilities(network: Network, calibration: Calibration) -> Floats:
    """(slots, columns): the probability that a recognizer's reading of a slot, a token or nothing, is right.

    Equal readings have equal probabilities. Those of a slot's different readings add up to 1 at most.
    """
    key = network.key
    chance = _fillers(network)
    if not len(key):
        return chance
    view = View(network, _knowledge(network, calibration.knowledge))
    rows, agreed = agreed_evidence(view)
    chance[agreed] = calibration.agreed.probability(rows)[:, None]
    evidence = disputed_evidence(view)
    right = (calibration.pair if key.shape[1] == 2 else calibration.several).probability(evidence)
    same = key[evidence.slot] == key[evidence.slot, evidence.column][:, None]
    disputed = np.unique(evidence.slot)
    chance[disputed] = 0
    np.add.at(chance, evidence.slot, same * right[:, None])
    chance[disputed] = _with_confidences(network, chance, disputed)
    return np.clip(chance, 1 - SUREST, SUREST)


def _knowledge(network: Network, knowledge: Knowledge) -> Knowledge:
    """What is known of the words of the network's language."""
    tag = language([column.hypothesis for column in network.columns])
    return knowledge if tag is None or primary(tag) == "en" else knowledge.other_language(frequencies(tag))


def _with_confidences(network: Network, chance: Floats, slots: NDArray[np.int64]) -> Floats:
    """The probabilities of disputed slots, adding up to 1 at most, after regard to the recognizers' confidences.

    Confidences only move probability between the readings of a slot: the trees already regard that it is disputed.
    """
    key, part = network.key[slots], chance[slots]
    same = key[:, :, None] == key[:, None, :]
    votes = same.sum(axis=2)
    moved = shifts(network)[slots]
    reported = ~np.isnan(moved)
    if reported.any():
        shift = (same * np.where(reported, moved, 0)[:, None, :]).sum(axis=2) / np.maximum(
            (same & reported[:, None]).sum(axis=2), 1
        )
        odds = np.clip(part, 1 - SUREST, SUREST)
        shifted = 1 / (1 + (1 - odds) / odds * np.exp(-shift))
        part = shifted * ((part / votes).sum(axis=1) / (shifted / votes).sum(axis=1))[:, None]
    result: Floats = part / np.maximum((part / votes).sum(axis=1, keepdims=True), 1)
    return result


def _fillers(network: Network) -> Floats:
    """(slots, columns): the share of recognizers with the same token, scaled to `FILLER`; a tie favours no token."""
    key = network.key
    share = (key[:, :, None] == key[:, None, :]).mean(axis=2)
    low, high = FILLER
    chance: Floats = low + (high - low) * share - 0.01 * (key >= 0)
    return chance
