"""How each recognizer fares in one recording, without a reference: shares and means that tell good ones from bad ones.

Local evidence in one slot cannot tell that a recognizer repeats itself, leaves out minutes or spells by ear. Over the
whole recording it shows: its disputed words are less expected than those of its rivals, more of them are in no
vocabulary, its misses come in long runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agents.text.alignment.network import runs
from agents.text.calibration.runs import again, triples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Network

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]
    Flags = NDArray[np.bool_]

#: The figures per recognizer, in this order. How it punctuates and capitalises is not among them: it tells who it is,
#: and what the trees learned from it did not hold for others (pairs with unseen recognizers 4.8 % instead of 5.2 %, the
#: worst -5.0 % instead of -2.9 %).
STANDING = (
    "agreement", "alone", "missed", "unknown", "unknown_disputed", "zipf_disputed", "general", "domain",
    "general_better", "domain_better", "repeated", "looped", "missed_in_runs", "alone_in_runs", "words",
    "weight",
)  # fmt: skip
#: Disputed slots with average outcome that are added to a recognizer's (a prior).
LEAN = 20.0
#: Slots from which a run in which a recognizer alone has nothing, or words, is long.
LONG_RUN = 8
#: Tokens before a token in which three equal tokens in a row count as a loop.
LOOP = 40


def standing(network: Network, zipf: Floats, paths: Sequence[Floats], slots: Ints, weight: Floats) -> Floats:
    """(columns, len(STANDING)): the figures of each recognizer.

    `zipf` is by name; `paths` are how expected a reading is in general English and in transcripts, (slots, columns),
    for the disputed `slots`; `weight` is that of `reliability` in them.
    """
    key = network.key
    width = key.shape[1]
    if not len(key):
        return np.zeros((width, len(STANDING)), dtype=np.float32)
    others = max(width - 1, 1)
    present = key >= 0
    alone = present & (present.sum(axis=1, keepdims=True) == 1) & (width > 1)
    missed = ~present & (present.sum(axis=1, keepdims=True) == others) & (width > 1)
    agree = ((key[:, :, None] == key[:, None, :]).sum(axis=2) - 1).mean(axis=0) / others
    known = np.concatenate([np.isnan(zipf) | (zipf > 0), [True]])
    words = present.sum(axis=0)
    disputed = key[slots]
    own = disputed >= 0
    return np.stack(
        [
            agree, alone.mean(axis=0), missed.mean(axis=0),
            (~known[key] & present).sum(axis=0) / np.maximum(words, 1),
            (~known[disputed] & own).sum(axis=0) / (own.sum(axis=0) + LEAN),
            _mean(np.where(own, np.nan_to_num(zipf)[disputed], np.nan), 4.0),
            *_expected(disputed, paths),
            *np.array([_repetition(column.key) for column in network.columns]).T,
            _in_runs(missed), _in_runs(alone),
            np.log(np.maximum(words, 1) / max(np.median(words), 1)),
            weight,
        ],
        axis=1,
        dtype=np.float32,
    )  # fmt: skip


def reliability(disputed: Ints) -> tuple[Floats, Floats]:
    """The weight of each column's vote, and (columns, columns) how often two agree, in disputed slots.

    The weight is the log odds that a column is right, by expectation maximisation with one rate per column (Dawid and
    Skene 1979). Two columns cannot be told apart by their votes.
    """
    width = disputed.shape[1]
    same = disputed[:, :, None] == disputed[:, None, :]
    together = (same.sum(axis=0) + 1.0) / (len(disputed) + 2.0)
    rate = np.full(width, 0.6)
    if width > 2:
        for _ in range(12):
            odds = np.log(rate / (1 - rate))
            support = same @ odds
            votes = same.sum(axis=2)
            likely = np.exp(support - support.max(axis=1, keepdims=True))
            likely /= (likely / votes).sum(axis=1, keepdims=True)
            rate = (likely.sum(axis=0) + 0.6 * LEAN) / (len(disputed) + LEAN)
            rate = np.clip(rate, 0.02, 0.98)
    weight = np.maximum(np.log(rate / (1 - rate)) + 1.0, 0.05)
    return weight, together


def _mean(values: Floats, usual: float) -> Floats:
    """The mean by column of what is known, leaning on the usual value."""
    known = ~np.isnan(values)
    mean: Floats = (np.where(known, values, 0).sum(axis=0) + LEAN * usual) / (known.sum(axis=0) + LEAN)
    return mean


def _expected(disputed: Ints, paths: Sequence[Floats]) -> list[Floats]:
    """How much more expected a recognizer's words are than the other words of the slot: the mean difference, and the
    share of slots in which they are more expected than the others' mean; for each of the paths.
    """
    present = disputed >= 0
    differ = present & (present.sum(axis=1, keepdims=True) > 1)
    differ &= ((disputed[:, :, None] != disputed[:, None, :]) & present[:, None, :]).any(axis=2)
    means, shares = [], []
    for path in paths:
        total = np.where(present, path, 0).sum(axis=1, keepdims=True)
        rest = (total - path) / np.maximum(present.sum(axis=1, keepdims=True) - 1, 1)
        difference = np.where(differ, path - rest, np.nan)
        means.append(_mean(difference, 0.0))
        shares.append(_mean(np.where(differ, (difference > 0) + 0.5 * (difference == 0), np.nan), 0.5))
    return means + shares


def _repetition(key: Ints) -> tuple[float, float]:
    """The shares of tokens equal to the one before, and of those that end three tokens said shortly before."""
    if len(key) < 4:
        return 0.0, 0.0
    repeated = float((key[1:] == key[:-1]).mean())
    size = int(key.max()) + 1
    second, _ = again(triples(key, size), LOOP)
    return repeated, float(second.mean())


def _in_runs(flags: Flags) -> Floats:
    """By column, the share of all slots that are flagged in a run of at least `LONG_RUN`."""
    shares = np.zeros(flags.shape[1], dtype=np.float32)
    for k in range(flags.shape[1]):
        lengths = [end - first for first, end in runs(flags[:, k])]
        shares[k] = sum(length for length in lengths if length >= LONG_RUN) / len(flags)
    return shares
