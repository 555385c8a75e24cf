"""Words of what Moonshine heard, with their times and probabilities.

A model's cross attention shows which part of the sound each token was made from. Dynamic time warping finds the path
through it that goes forward in time, as Whisper's `word_timestamps` does (Radford et al., openai/whisper, timing.py):
each head is normalised over the tokens and smoothed by a median over time, and the mean of the heads is what the path
collects. Starts and ends are 0.08 to 0.10 s from Whisper base's at the median, 0.2 s at the 90th percentile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agents.asr.moonshine.model import Heard

#: Frames of the median filter: Whisper's.
_MEDIAN = 7
#: Seconds of a window's first and last word at most: the path gives them all that is before and after them, such as a
#: telephone's ringing.
_OUTER_S = 1.2


def words(heard: Heard, duration_s: float) -> Iterator[tuple[str, float, float, float]]:
    """The words of a window of that length: text, start and end in seconds, probability.

    A word is as probable as the least probable of its tokens.
    """
    starts, ends = frames(heard.attention)
    frame_s = duration_s / heard.attention.shape[2]
    for first, last in _spans(heard.pieces):
        text = b"".join(heard.pieces[first : last + 1]).decode(errors="replace").strip()
        if not text:
            continue
        start, end = starts[first] * frame_s, (ends[last] + 1) * frame_s
        if first == 0:
            start = max(start, end - _OUTER_S)
        if last == len(heard.pieces) - 1:
            end = min(end, start + _OUTER_S)
        yield text, start, end, min(heard.probabilities[first : last + 1])


def _spans(pieces: list[bytes]) -> Iterator[tuple[int, int]]:
    """The first and the last token of each word: a word begins with a space."""
    first = 0
    for index in range(1, len(pieces) + 1):
        if index == len(pieces) or pieces[index].startswith(b" "):
            yield first, index - 1
            first = index


def frames(attention: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """Of each token, the first and the last frame on the path; `attention` has the shape (heads, tokens, frames)."""
    costs = np.zeros(attention.shape[1:])
    for head in attention:  # one at a time: all at once need 200 MB for a window
        normal = (head - head.mean(axis=0)) / (head.std(axis=0) + 1e-9)
        padded = np.pad(normal, ((0, 0), (_MEDIAN // 2, _MEDIAN // 2)), mode="edge")
        costs -= np.median(np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN, axis=1), axis=2)
    return _path(costs / len(attention))


def _path(costs: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """The cheapest path from the first token and frame to the last, by steps of one token, one frame, or both.

    A row is computed at once: coming from the left costs the sum of the costs between, so the best place to have
    entered the row is a running minimum.
    """
    tokens, length = costs.shape
    best = np.empty((tokens, length))
    best[0] = np.cumsum(costs[0])
    for token in range(1, tokens):
        above = best[token - 1]
        entered = np.minimum(above, np.concatenate(([np.inf], above[:-1])))
        sums = np.cumsum(costs[token])
        best[token] = sums + np.minimum.accumulate(entered - sums + costs[token])
    starts, ends = [0] * tokens, [0] * tokens
    token, frame = tokens - 1, length - 1
    ends[token] = frame
    while token:
        above, left = best[token - 1, frame], best[token, frame - 1] if frame else np.inf
        diagonal = best[token - 1, frame - 1] if frame else np.inf
        if left < min(above, diagonal):
            frame -= 1
            continue
        starts[token] = frame
        frame -= diagonal <= above
        token -= 1
        ends[token] = frame
    return starts, ends
