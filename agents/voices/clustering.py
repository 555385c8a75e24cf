"""Finds how many voices there are among vectors of speech, and what each sounds like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: Cosine of two voices' mean vectors from which they are one speaker: of two voices, and of more. Different people have
#: 0.61 to 0.82, through a telephone up to 0.88; halves of one person's speech 0.88 to 0.95. Whoever asks for speakers
#: has a conversation, of two more often than of more.
SAME_OF_TWO, SAME = 0.92, 0.8
#: Consecutive vectors whose average may be the first guess of a voice.
JOINED = 6
#: Voices that are guessed first, and the share of the speech that each has at least; less is noise, or a cough.
GUESSED, LEAST = 10, 0.04
#: The share of a third voice at least, and of further ones: less is a speaker who laughs, or two who speak at once.
THIRD = 0.12
#: The share of each voice's vectors that are too uncertain to say what it sounds like.
UNCERTAIN = 0.2
#: Rounds in which vectors choose the nearest voice, and in which uncertain ones are left out.
_ROUNDS, _CLEANED = 10, 3


def voices(vectors: Floats, speakers: int | None = None) -> Floats:
    """(voices, size): the mean vector of each voice, of length 1.

    `vectors` (n, size), in the order of time, have length 1. `speakers` is the number of voices if it is known. First
    there are more voices than anybody expects, each far from the others. Vectors choose the nearest one (spherical
    k-means), and the two most similar voices are made one as long as they are the same speaker's, or too many.
    """
    if not len(vectors):
        return vectors
    least = speakers or 1
    means = _settled(vectors, _guesses(vectors, max(GUESSED, least)), least)
    while len(means) > least:
        alike = means @ means.T
        np.fill_diagonal(alike, -1)
        one, other = np.unravel_index(int(alike.argmax()), alike.shape)
        if speakers is not None or alike[one, other] >= (SAME if len(means) > 2 else SAME_OF_TWO):
            merged = _unit(means[[one, other]].sum(axis=0, keepdims=True))
            fewer = np.concatenate([np.delete(means, [one, other], axis=0), merged])
        else:
            shares = np.bincount((vectors @ means.T).argmax(axis=1), minlength=len(means)) / len(vectors)
            if len(means) == 2 or shares.min() >= THIRD:
                break
            fewer = np.delete(means, shares.argmin(), axis=0)
        means = _settled(vectors, fewer, least)
    return _clean(vectors, means) if len(means) > 1 else means


def _clean(vectors: Floats, means: Floats) -> Floats:
    """The means without the least certain of each voice's vectors: in these, two people speak at once."""
    for _ in range(_CLEANED):
        alike = vectors @ means.T
        chosen, ranked = alike.argmax(axis=1), np.sort(alike, axis=1)
        certain = ranked[:, -1] - ranked[:, -2]
        means = means.copy()
        for voice in np.unique(chosen):
            own = chosen == voice
            means[voice] = vectors[own & (certain >= np.quantile(certain[own], UNCERTAIN))].sum(axis=0)
        means = _unit(means)
    return means


def _guesses(vectors: Floats, count: int) -> Floats:
    """Averages of consecutive vectors, each the least similar one to those before it."""
    joined = _unit(np.add.reduceat(vectors, np.arange(0, len(vectors), JOINED), axis=0))
    chosen = [int((joined @ joined.mean(axis=0)).argmax())]
    nearest = joined @ joined[chosen[0]]
    while len(chosen) < min(count, len(joined)):
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, joined @ joined[chosen[-1]])
    return joined[chosen]


def _settled(vectors: Floats, means: Floats, least: int) -> Floats:
    """The means after vectors have chosen the nearest one, without rare ones, but `least` of them."""
    for _ in range(_ROUNDS):
        chosen = (vectors @ means.T).argmax(axis=1)
        sizes = np.bincount(chosen, minlength=len(means))
        sums = np.zeros_like(means)
        np.add.at(sums, chosen, vectors)
        frequent = max(least, int((sizes >= LEAST * len(vectors)).sum()))
        after = _unit(sums)[np.sort(np.argsort(-sizes, kind="stable")[:frequent])]
        if after.shape == means.shape and np.allclose(after, means, atol=1e-4):
            break
        means = after
    return means


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return unit
