"""Which windows of a recording say what each of its speakers sounds like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

#: Half the length of a window in ms, as `agents.voices.encoder` has it.
HALF_MS: Final = 800
#: The share of a window in which its speaker speaks at least, and in which others do at most.
OWN: Final = 0.7
OTHERS: Final = 0.1
#: Seconds of a speaker's speech that are listened to: the longest turns first, which have the fewest other voices.
LISTENED_S: Final = 60.0
#: Seconds of speech that say what a voice sounds like, at least.
LEAST_S: Final = 5.0
#: Decibels from the quiet to the loud tenth of a speaker's sound, at least. With noise 20 dB below the speech they are
#: 29 to 34; with noise 10 dB below 21 to 26, and then different people are as near to each other (0.92) as one person.
LEAST_RANGE_DB: Final = 28.0

Speech = Sequence[tuple[int, int]]


def range_db(powers: Sequence[Floats]) -> float:
    """The decibels from the quiet to the loud tenth of frames, of which these are the powers."""
    quiet, loud = np.percentile(np.concatenate(powers), [10, 90])
    return float(10 * np.log10(max(loud, 1e-12) / max(quiet, 1e-12)))


def selected(speech: Speech) -> list[tuple[int, int]]:
    """The longest of one speaker's intervals (ms), in order, of `LISTENED_S` together."""
    chosen, left = [], LISTENED_S * 1000
    for start, end in sorted(speech, key=lambda interval: interval[0] - interval[1]):
        if left <= 0:
            break
        chosen.append((start, min(end, start + round(left))))
        left -= end - start
    return sorted(chosen)


def share(speech: Speech, middles_ms: NDArray[np.int64]) -> Floats:
    """Per window, the share of it that is within the intervals, which are in order and do not overlap."""
    if not speech:
        return np.zeros(len(middles_ms))
    times = np.array(speech, dtype=np.float64).ravel()
    lengths = np.cumsum(np.diff(times, prepend=times[0]) * (np.arange(len(times)) % 2))
    until = np.interp([middles_ms - HALF_MS, middles_ms + HALF_MS], times, lengths)
    shares: Floats = (until[1] - until[0]) / (2 * HALF_MS)
    return shares


def owners(speech: Mapping[str, Speech], middles_ms: NDArray[np.int64]) -> list[str | None]:
    """Per window, the speaker who alone speaks in it; None where there is none, or two do."""
    names = sorted(speech)
    if not names:
        return [None] * len(middles_ms)
    shares = np.array([share(speech[name], middles_ms) for name in names])
    best, most = shares.argmax(axis=0), shares.max(axis=0)
    is_alone = (most >= OWN) & (shares.sum(axis=0) - most <= OTHERS)
    return [names[n] if alone else None for n, alone in zip(best.tolist(), is_alone.tolist(), strict=True)]
