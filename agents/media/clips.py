"""Cuts intervals of a recording into FLAC files of their own, in a subprocess that a hostile recording may crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding.decoder import decode
from agents.media.flac_chunks import RATE, STALL_S, ask_encoder, flac, serve_encoder
from agents.media.subprocess_worker import Message, Worker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Clips:
    """Cuts clips from within an event loop, in one subprocess; concurrent calls wait for each other."""

    def __init__(self, *, stall_s: float = STALL_S) -> None:
        self._worker = Worker("agents.media.clips")
        self._stall_s = stall_s

    async def cut(self, audio: Path, intervals: Sequence[tuple[int, int]], folder: Path) -> list[Path]:
        """Write a FLAC file for each interval, given as start and end in ms, in order and without overlap.

        What lies past the recording's end is silence.

        Raises:
            RefusedMedia: The recording cannot be decoded.
            Transient: The subprocess died.
        """
        request = {"path": str(audio.resolve()), "intervals": intervals, "folder": str(folder)}
        await ask_encoder(self._worker, request, audio, self._stall_s)
        return [_file(folder, number) for number in range(len(intervals))]

    async def close(self) -> None:
        """End the subprocess. Safe to call twice."""
        await self._worker.close()


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.flac"


# What follows runs in the subprocess.


def _answer(request: Message, send: Callable[[Message], None]) -> Message:
    sounds = clips(Path(request["path"]), request["intervals"], lambda: send({}))
    for number, samples in enumerate(sounds):
        _file(Path(request["folder"]), number).write_bytes(flac(samples))
    return {}


def clips(
    path: Path, intervals: Sequence[tuple[int, int]], beat: Callable[[], None] = lambda: None
) -> Iterator[NDArray[np.float32]]:
    """The samples of each interval, mono at 16 kHz. Holds one clip, and decodes nothing after the last interval."""
    import numpy as np

    bounds = [(start * RATE // 1000, end * RATE // 1000) for start, end in intervals]
    number = position = 0
    portions: list[NDArray[np.float32]] = []

    def clip() -> NDArray[np.float32]:
        start, end = bounds[number]
        samples = np.concatenate([np.zeros(0, dtype=np.float32), *portions])
        portions.clear()
        return np.pad(samples, (0, end - start - len(samples)))

    for samples in decode(path, RATE, beat):
        beat()
        while number < len(bounds) and bounds[number][1] <= position + len(samples):
            portions.append(samples[max(0, bounds[number][0] - position) : bounds[number][1] - position])
            yield clip()
            number += 1
        if number == len(bounds):
            return
        portions.append(samples[max(0, bounds[number][0] - position) :])
        position += len(samples)
    while number < len(bounds):
        yield clip()
        number += 1


def main() -> None:
    """The subprocess: `python -m agents.media.clips`."""
    serve_encoder(_answer)


if __name__ == "__main__":
    main()
