"""Whose known voice a speaker's is, by what both sound like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

#: The cosine of two vectors from which they are taken for one person's voice. By `make bench-voice-prints`, one person
#: has 0.93 and more in two calls, different people 0.86 at most, in noise that is still listened to 0.90.
SAME_PERSON: Final = 0.91


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
