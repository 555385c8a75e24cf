"""Encodes a whole recording as one FLAC file, in a subprocess that a hostile recording may crash.

The subprocess holds some milliseconds of sound at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding.decoder import decode
from agents.media.flac_chunks import RATE, STALL_S, ask_encoder, serve_encoder, write_flac
from agents.media.subprocess_worker import Message, Worker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Transcoder:
    """Encodes recordings from within an event loop, in one subprocess; concurrent calls wait for each other."""

    def __init__(self, *, stall_s: float = STALL_S) -> None:
        self._worker = Worker("agents.media.transcode")
        self._stall_s = stall_s

    async def transcode(self, audio: Path, target: Path) -> None:
        """Write the recording's sound to a FLAC file: mono, 16 kHz, 16 bits; a sample's index is its time.

        Raises:
            RefusedMedia: The recording cannot be decoded.
            Transient: The subprocess died.
        """
        request = {"path": str(audio.resolve()), "target": str(target.resolve())}
        await ask_encoder(self._worker, request, audio, self._stall_s)

    async def close(self) -> None:
        """End the subprocess. Safe to call twice."""
        await self._worker.close()


# What follows runs in the subprocess.


def _answer(request: Message, send: Callable[[Message], None]) -> Message:
    def sound() -> Iterator[NDArray[np.float32]]:
        for samples in decode(Path(request["path"]), RATE, lambda: send({})):
            send({})
            yield samples

    with Path(request["target"]).open("wb") as file:
        write_flac(file, sound())
    return {}


def main() -> None:
    """The subprocess: `python -m agents.media.transcode`."""
    serve_encoder(_answer)


if __name__ == "__main__":
    main()
