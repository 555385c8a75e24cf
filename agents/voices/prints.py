"""What each speaker of a recording sounds like, as one vector, and whose known voice that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
#: The cosine of two vectors from which they are taken for one person's voice.
SAME_PERSON: Final = 0.85

Speech = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class VoicePrint:
    """What a speaker sounds like in one recording."""

    #: The encoder that made it. Vectors of different ones cannot be compared.
    model: str
    #: Numbers of 4 bytes, little-endian, of length 1 as a vector.
    vector: bytes = field(repr=False)
    #: Seconds of speech that it is the mean of.
    seconds: float


@dataclass(frozen=True, slots=True)
class Likeness:
    """The known name whose voice a speaker's is like."""

    name: str
    #: Cosine of the two voices.
    similarity: float


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


def likenesses(heard: Mapping[str, VoicePrint], known: Sequence[tuple[str, VoicePrint]]) -> dict[str, Likeness]:
    """By speaker of a recording, the name whose print is nearest, where it is near enough. Two speakers do not get one
    name, nor one speaker two. A name's recordings are compared one by one: a name may stand for several people.
    """
    pairs = [
        (_cosine(print_, other), speaker, name)
        for speaker, print_ in heard.items()
        for name, other in known
        if print_.model == other.model and len(print_.vector) == len(other.vector)
    ]
    found: dict[str, Likeness] = {}
    for similarity, speaker, name in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        taken = any(one.name == name for one in found.values())
        if similarity >= SAME_PERSON and speaker not in found and not taken:
            found[speaker] = Likeness(name, round(similarity, 3))
    return found


def _cosine(one: VoicePrint, other: VoicePrint) -> float:
    return float(np.frombuffer(one.vector, dtype="<f4") @ np.frombuffer(other.vector, dtype="<f4"))
