"""Splits decoded sound into chunks of bounded length, at pauses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding.decoder import decode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive mono samples of a recording, -1 to 1."""

    #: Milliseconds from the start of the recording.
    start_ms: int
    samples: NDArray[np.float32]


def chunks(
    path: Path,
    *,
    seconds: float = 300.0,
    search_s: float = 30.0,
    rate: int = 16_000,
    beat: Callable[[], None] = lambda: None,
    channel: int | None = None,
) -> Iterator[Chunk]:
    """A recording, or one channel of it, at `rate` hertz in chunks of at most `seconds`, each cut in the quietest part
    of its last `search_s`.

    Holds one chunk in memory, however long the recording is. `beat` is called often. Raises as `decode` does.
    """
    return split(decode(path, rate, beat, channel), seconds=seconds, search_s=search_s, rate=rate)


def split(sound: Iterable[NDArray[np.float32]], *, seconds: float, search_s: float, rate: int) -> Iterator[Chunk]:
    """Sound that comes in portions of any size as chunks, as `chunks` does: each sample in one of them, in order."""
    import numpy as np

    limit, search = int(seconds * rate), int(search_s * rate)
    held: list[NDArray[np.float32]] = []
    length = start = 0
    for samples in sound:
        held.append(samples)
        length += len(samples)
        while length >= limit:
            joined = np.concatenate(held)
            cut = limit - search + _quietest(joined[limit - search : limit], rate)
            yield Chunk(start * 1000 // rate, joined[:cut])
            held, start, length = [joined[cut:]], start + cut, length - cut
    if length:
        yield Chunk(start * 1000 // rate, np.concatenate(held))


def _quietest(samples: NDArray[np.float32], rate: int) -> int:
    """The index of the middle of the quietest 300 ms."""
    import numpy as np

    step = rate // 50
    power = np.square(samples[: len(samples) // step * step].reshape(-1, step)).mean(axis=1)
    if len(power) < 15:
        return len(samples)
    return (int(np.convolve(power, np.ones(15), "valid").argmin()) + 7) * step
