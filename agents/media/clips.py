"""Stretches of a recording as files of their own, cut in a process that a hostile recording may crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding.decoder import decode
from agents.media.flac_chunks import RATE, STALL_S, cut, cutting, flac
from agents.media.subprocess_worker import Message, Worker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Clips:
    """Cuts for an event loop; recordings wait for each other."""

    def __init__(self, *, stall_s: float = STALL_S) -> None:
        self._worker = Worker("agents.media.clips")
        self._stall_s = stall_s

    async def cut(self, audio: Path, stretches: Sequence[tuple[int, int]], folder: Path) -> list[Path]:
        """Write a FLAC file for each stretch, given as start and end in ms, in order and without overlap.

        What lies past the recording's end is silence. Raises `RefusedMedia`, or `Transient` when the process died.
        """
        order = {"path": str(audio.resolve()), "stretches": stretches, "folder": str(folder)}
        await cutting(self._worker, order, audio, self._stall_s)
        return [_file(folder, number) for number in range(len(stretches))]

    async def close(self) -> None:
        """End the process. Safe to call twice."""
        await self._worker.close()


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.flac"


# What follows runs in the process.


def _answer(order: Message, tell: Callable[[Message], None]) -> Message:
    sounds = clips(Path(order["path"]), order["stretches"], lambda: tell({}))
    for number, samples in enumerate(sounds):
        _file(Path(order["folder"]), number).write_bytes(flac(samples))
    return {}


def clips(
    path: Path, stretches: Sequence[tuple[int, int]], beat: Callable[[], None] = lambda: None
) -> Iterator[NDArray[np.float32]]:
    """The sound of each stretch, mono at 16 kHz. One at a time is held, and nothing behind the last is decoded."""
    import numpy as np

    bounds = [(start * RATE // 1000, end * RATE // 1000) for start, end in stretches]
    number = at = 0
    parts: list[NDArray[np.float32]] = []

    def whole() -> NDArray[np.float32]:
        start, end = bounds[number]
        found = np.concatenate([np.zeros(0, dtype=np.float32), *parts])
        parts.clear()
        return np.pad(found, (0, end - start - len(found)))

    for samples in decode(path, RATE, beat):
        beat()
        while number < len(bounds) and bounds[number][1] <= at + len(samples):
            parts.append(samples[max(0, bounds[number][0] - at) : bounds[number][1] - at])
            yield whole()
            number += 1
        if number == len(bounds):
            return
        parts.append(samples[max(0, bounds[number][0] - at) :])
        at += len(samples)
    while number < len(bounds):
        yield whole()
        number += 1


def main() -> None:
    """The process: `python -m agents.media.clips`."""
    cut(_answer)


if __name__ == "__main__":
    main()
