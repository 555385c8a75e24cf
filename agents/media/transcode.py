"""A whole recording as one FLAC file, for a recognizer that reads it from a bucket: packed in a process of its own,
which a hostile recording may crash, and which holds some milliseconds of it at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding.decoder import decode
from agents.media.flac_chunks import RATE, STALL_S, cut, cutting, write_flac
from agents.media.subprocess_worker import Message, Worker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Transcoder:
    """Packs for an event loop; recordings wait for each other."""

    def __init__(self, *, stall_s: float = STALL_S) -> None:
        self._worker = Worker("agents.media.transcode")
        self._stall_s = stall_s

    async def transcode(self, audio: Path, target: Path) -> None:
        """Write all of the recording's sound to a FLAC file: mono, 16 kHz, 16 bits; a sample's place is its time.

        Raises `RefusedMedia`, or `Transient` when the process died.
        """
        order = {"path": str(audio.resolve()), "target": str(target.resolve())}
        await cutting(self._worker, order, audio, self._stall_s)

    async def close(self) -> None:
        """End the process. Safe to call twice."""
        await self._worker.close()


# What follows runs in the process.


def _answer(order: Message, tell: Callable[[Message], None]) -> Message:
    def sound() -> Iterator[NDArray[np.float32]]:
        for samples in decode(Path(order["path"]), RATE, lambda: tell({})):
            tell({})
            yield samples

    with Path(order["target"]).open("wb") as file:
        write_flac(file, sound())
    return {}


def main() -> None:
    """The process: `python -m agents.media.transcode`."""
    cut(_answer)


if __name__ == "__main__":
    main()
