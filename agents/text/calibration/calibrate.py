"""How likely each reading of each slot is right, given everything heard. Fitted by bench/fit_reconciler.py."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.text.calibration.agreed import agreed_evidence
from agents.text.calibration.evidence import View, disputed_evidence
from agents.text.calibration.knowledge import Knowledge
from agents.text.calibration.trees import Trees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agents.text.alignment.network import Network

    Floats = NDArray[np.float64]

#: How much a recognizer's own confidence, where it has one, moves the log odds of its words. Not fitted: the corpora
#: have no confidences. Half of what it says, measured from its average, which starts at a log odds of 2 with the weight
#: of 20 words.
TRUST, USUAL, WEIGHT, MOST = 0.5, 2.0, 20.0, 3.0
#: A filler is kept if more than half of the recognizers heard it; these are the probabilities for none and for all of
#: them.
FILLER = (0.05, 0.95)
#: No reading is surer than this, nor less sure than one minus this.
SUREST = 0.9995


@dataclass(frozen=True)
class Calibration:
    """The fitted parameters, and where they come from."""

    knowledge: Knowledge
    #: For the readings of a disputed slot: of two recognizers, and of more.
    pair: Trees
    several: Trees
    #: For a word that all heard.
    agreed: Trees
    #: Corpora, date, command, figures.
    provenance: Mapping[str, Any] = field(default_factory=dict)


@cache
def shipped() -> Calibration:
    """The calibration that comes with Concord."""
    return load(Path(__file__).with_name("calibration.json.gz").read_bytes())


def load(data: bytes) -> Calibration:
    """A calibration from its file."""
    content = json.loads(gzip.decompress(data))
    return Calibration(
        Knowledge.from_json(content["knowledge"]),
        Trees.from_json(content["pair"]),
        Trees.from_json(content["several"]),
        Trees.from_json(content["agreed"]),
        content["provenance"],
    )


def dump(calibration: Calibration) -> bytes:
    """A calibration as a file: the same bytes for the same parameters."""
    content = {
        "provenance": dict(calibration.provenance),
        "knowledge": calibration.knowledge.to_json(),
        "pair": calibration.pair.to_json(),
        "several": calibration.several.to_json(),
        "agreed": calibration.agreed.to_json(),
    }
    return gzip.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), 9, mtime=0)


def probabilities(network: Network, calibration: Calibration) -> Floats:
    """(slots, columns): the probability that what a recognizer has in a slot, a token or nothing, is right.

    Equal readings have equal probabilities; those of the different readings of a slot add up to 1 at most.
    """
    key = network.key
    chance = _fillers(network)
    if not len(key):
        return chance
    view = View(network, calibration.knowledge)
    agreed = agreed_evidence(view)
    chance[agreed.slot] = calibration.agreed.probability(agreed.rows)[:, None]
    found = disputed_evidence(view)
    right = (calibration.pair if key.shape[1] == 2 else calibration.several).probability(found.rows)
    same = key[found.slot] == key[found.slot, found.column][:, None]
    disputed = np.unique(found.slot)
    chance[disputed] = 0
    np.add.at(chance, found.slot, same * right[:, None])
    chance[disputed] = _trusting(network, chance, disputed)
    return np.clip(chance, 1 - SUREST, SUREST)


def _trusting(network: Network, chance: Floats, slots: NDArray[np.int64]) -> Floats:
    """Probabilities in disputed slots, adding up to 1 at most, moved by the recognizers' confidences: from one reading
    of a slot to another, as that something is in doubt there is in the probabilities already.
    """
    key, part = network.key[slots], chance[slots]
    same = key[:, :, None] == key[:, None, :]
    votes = same.sum(axis=2)
    moved = _confidence(network)[slots]
    known = ~np.isnan(moved)
    if known.any():
        shift = (same * np.where(known, moved, 0)[:, None, :]).sum(axis=2) / np.maximum(
            (same & known[:, None]).sum(axis=2), 1
        )
        odds = np.clip(part, 1 - SUREST, SUREST)
        believed = 1 / (1 + (1 - odds) / odds * np.exp(-TRUST * shift))
        part = believed * ((part / votes).sum(axis=1) / (believed / votes).sum(axis=1))[:, None]
    result: Floats = part / np.maximum((part / votes).sum(axis=1, keepdims=True), 1)
    return result


def _confidence(network: Network) -> Floats:
    """(slots, columns): log odds of a recognizer's confidence in its token above its usual ones; NaN where unknown."""
    picked = np.full(network.grid.shape, np.nan)
    for k, column in enumerate(network.columns):
        said = np.array([np.nan if word.confidence is None else word.confidence for word in column.words])
        known = ~np.isnan(said)
        if not known.any():
            continue
        sure = np.clip(said, 0.001, 0.999)
        odds = np.log(sure / (1 - sure))
        usual = (odds[known].sum() + USUAL * WEIGHT) / (known.sum() + WEIGHT)
        there = network.grid[:, k] >= 0
        picked[there, k] = np.clip(odds - usual, -MOST, MOST)[column.first[network.grid[there, k]]]
    return picked


def _fillers(network: Network) -> Floats:
    """(slots, columns): the share of recognizers that have the same, between `FILLER`; a tie goes to nothing."""
    key = network.key
    share = (key[:, :, None] == key[:, None, :]).mean(axis=2)
    low, high = FILLER
    chance: Floats = low + (high - low) * share - 0.01 * (key >= 0)
    return chance
