"""Recordings in pieces, for a recognizer that takes a minute at most: cut where it is quietest, packed as FLAC.

Decoding and packing go on in a process of its own, which holds one piece at a time and waits to be asked for the next:
an hours-long recording needs no more memory, here or there, than the pieces that are in use.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from agents.media.decoding.decoder import SILENT_PEAK, Piece, pieces
from agents.media.subprocess_worker import Died, Message, Worker, begin, serve
from schemas.errors import Transient, Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Seconds: a piece is cut at the quietest place between these. Recognizers take 60, and some room is left.
SHORTEST_S, LONGEST_S = 30.0, 55.0
#: Hertz: what recognizers want speech in.
RATE = 16_000
#: Seconds without a sign of life after which the decoding process is killed.
STALL_S = 60.0
#: Bytes that a recording packed as FLAC may have: ten hours of noise have 1.15 GB.
_FILE_SIZE = 4 << 30


@dataclass(frozen=True, slots=True)
class Flac:
    """A piece of a recording: mono, 16 kHz, 16 bits. The pieces of a recording follow each other without a gap."""

    start_ms: int
    length_ms: int
    #: It never gets louder than `agents.media.decoding.decoder.SILENT_PEAK`.
    silent: bool
    #: The same for the same recording, on the same build of ffmpeg.
    content: bytes


class FlacChunker:
    """The pieces of one recording, in order. Use as a context manager: the process ends with it."""

    def __init__(self, path: Path, *, stall_s: float = STALL_S) -> None:
        self._path = path
        self._stall_s = stall_s
        self._worker = Worker("agents.media.flac_chunks")
        self._number = 0
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._worker.close()

    @property
    def pid(self) -> int | None:
        """The decoding process while it lives."""
        return self._worker.pid

    async def next(self) -> Flac | None:
        """The next piece, or None after the last; several may ask at a time.

        Raises `RefusedMedia`, or `Transient` when the process died or was killed.
        """
        async with self._turn:
            order = {"path": str(self._path.resolve()), "number": self._number}
            answer = await cutting(self._worker, order, self._path, self._stall_s)
            if not answer:
                return None
            self._number += 1
            content = base64.b64decode(answer["flac"])
            return Flac(answer["start_ms"], answer["length_ms"], answer["silent"], content)


async def cutting(worker: Worker, order: Message, audio: Path, stall_s: float) -> Message:
    """What the process answers. Raises `RefusedMedia`, or `Transient` when it died or stood still."""
    try:
        return await worker.ask(order, stall_s=stall_s)
    except (Died, Unavailable) as exc:
        raise Transient(f"cutting {audio.name} was interrupted: {exc}") from exc
    except TimeoutError as exc:
        raise Transient(f"cutting {audio.name} made no progress for {stall_s:.0f} s") from exc


# What follows runs in the process.


class _Cutting:
    """Answers with the piece of a number. Asked in order, as it is unless it was killed, it decodes only once."""

    def __init__(self) -> None:
        self._path = ""
        self._pieces: Iterator[Piece] = iter(())
        self._number = 0

    def answer(self, order: Message, tell: Callable[[Message], None]) -> Message:
        """The piece, or nothing after the last."""
        path, before = order["path"], self._path
        self._path = ""  # until this has gone well: a decoder that has failed must not look like one at the end
        if (path, order["number"]) != (before, self._number):
            self._number = 0
            self._pieces = pieces(
                Path(path),
                seconds=LONGEST_S,
                search_s=LONGEST_S - SHORTEST_S,
                rate=RATE,
                beat=lambda: tell({}),
            )
        found: Message = {}
        for piece in self._pieces:
            tell({})
            self._number += 1
            if self._number > order["number"]:
                found = _packed(piece)
                break
        self._path = path
        return found


def _packed(piece: Piece) -> Message:
    return {
        "start_ms": piece.start_ms,
        "length_ms": len(piece.samples) * 1000 // RATE,
        "silent": bool(abs(piece.samples).max(initial=0.0) <= SILENT_PEAK),
        "flac": base64.b64encode(flac(piece.samples)).decode(),
    }


def flac(samples: NDArray[np.float32]) -> bytes:
    """Samples (mono, 16 kHz, -1 to 1) as a FLAC file."""
    file = io.BytesIO()
    write_flac(file, [samples])
    return file.getvalue()


def write_flac(file: BinaryIO, sound: Iterable[NDArray[np.float32]]) -> None:
    """The same, of sound in any portions, of which one at a time is held."""
    import av
    import numpy as np

    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        for samples in sound:
            whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(whole.reshape(1, -1), format="s16", layout="mono")
            frame.rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cut(answer: Callable[[Message, Callable[[Message], None]], Message]) -> None:
    """Be a process that cuts."""
    begin(file_size=_FILE_SIZE)
    import av  # noqa: F401  (so that the first piece does not wait for it)

    serve(answer)


def main() -> None:
    """The process: `python -m agents.media.flac_chunks`."""
    cut(_Cutting().answer)


if __name__ == "__main__":
    main()
