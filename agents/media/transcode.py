"""Encodes a whole recording as one FLAC file, perhaps with silent intervals, in a subprocess that a hostile recording
may crash.

The subprocess holds some milliseconds of sound at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

    async def transcode(self, audio: Path, target: Path, muted: Sequence[tuple[int, int | None]] = ()) -> None:
        """Write the recording's sound to a FLAC file: mono, 16 kHz, 16 bits; a sample's index is its time. It is silent
        in the intervals `muted` (ms from the start; None is the end).

        Raises:
            RefusedMedia: The recording cannot be decoded.
            Transient: The subprocess died.
        """
        request = {"path": str(audio.resolve()), "target": str(target.resolve()), "muted": list(muted)}
        await ask_encoder(self._worker, request, audio, self._stall_s)

    async def close(self) -> None:
        """End the subprocess. Safe to call twice."""
        await self._worker.close()


# What follows runs in the subprocess.


def _answer(request: Message, send: Callable[[Message], None]) -> Message:
    def sound() -> Iterator[NDArray[np.float32]]:
        at = 0
        for samples in decode(Path(request["path"]), RATE, lambda: send({})):
            send({})
            yield _silenced(samples, at, request.get("muted", ()))
            at += len(samples)

    with Path(request["target"]).open("wb") as file:
        write_flac(file, sound())
    return {}


def _silenced(samples: NDArray[np.float32], first: int, muted: Sequence[tuple[int, int | None]]) -> NDArray[np.float32]:
    """The samples, of which the first has this index, with silence in these intervals (ms)."""
    end = first + len(samples)
    for start_ms, end_ms in muted:
        start, stop = start_ms * RATE // 1000, end if end_ms is None else -(-end_ms * RATE // 1000)
        if start < end and stop > first:
            samples = samples.copy()
            samples[max(start - first, 0) : stop - first] = 0.0
    return samples


def main() -> None:
    """The subprocess: `python -m agents.media.transcode`."""
    serve_encoder(_answer)


if __name__ == "__main__":
    main()
