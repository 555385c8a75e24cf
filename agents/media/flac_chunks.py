"""Splits a recording into FLAC files of less than a minute, for recognizers that take a minute of audio at most.

A subprocess decodes and encodes. It holds one chunk and produces the next on request, so that memory here and there is
bounded by the chunks in use, however long the recording is.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from agents.media.decoding.chunks import Chunk, chunks
from agents.media.decoding.mixing import SILENT_PEAK
from agents.media.subprocess_worker import Message, Worker, WorkerDied, begin, serve
from schemas.errors import Transient, Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Seconds between which a chunk is cut, in the quietest part. Recognizers take 60, and some margin is left.
SHORTEST_S, LONGEST_S = 30.0, 55.0
#: Hertz: the rate at which recognizers take speech.
RATE = 16_000
#: Seconds without a message after which the decoding process is killed.
STALL_S = 60.0
#: Bytes that a FLAC file of a recording may have: ten hours of noise have 1.15 GB.
_FILE_SIZE = 4 << 30


@dataclass(frozen=True, slots=True)
class FlacChunk:
    """A chunk of a recording: mono, 16 kHz, 16 bits. The chunks of a recording follow each other without a gap."""

    start_ms: int
    length_ms: int
    #: It never gets louder than `agents.media.decoding.mixing.SILENT_PEAK`.
    silent: bool
    #: A FLAC file; the same bytes each time, for the same recording and build of ffmpeg.
    content: bytes


class FlacChunker:
    """The chunks of one recording, in order. Use as a context manager: the subprocess ends with it."""

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
        """The subprocess while it lives."""
        return self._worker.pid

    async def next(self) -> FlacChunk | None:
        """The next chunk, or None after the last. May be called concurrently.

        Raises:
            RefusedMedia: The recording cannot be decoded.
            Transient: The subprocess died or was killed.
        """
        async with self._turn:
            request = {"path": str(self._path.resolve()), "number": self._number}
            answer = await ask_encoder(self._worker, request, self._path, self._stall_s)
            if not answer:
                return None
            self._number += 1
            content = base64.b64decode(answer["flac"])
            return FlacChunk(answer["start_ms"], answer["length_ms"], answer["silent"], content)


async def ask_encoder(worker: Worker, request: Message, audio: Path, stall_s: float) -> Message:
    """The answer of a subprocess that runs `serve_encoder`.

    Raises:
        RefusedMedia: The recording cannot be decoded.
        Transient: The subprocess died, or made no progress for `stall_s` and was killed.
    """
    try:
        return await worker.ask(request, stall_s=stall_s)
    except (WorkerDied, Unavailable) as exc:
        raise Transient(f"cutting {audio.name} was interrupted: {exc}") from exc
    except TimeoutError as exc:
        raise Transient(f"cutting {audio.name} made no progress for {stall_s:.0f} s") from exc


# What follows runs in the subprocess.


class _ChunkServer:
    """Answers requests for chunks by number. Requests in order, the usual case, decode the recording only once."""

    def __init__(self) -> None:
        self._path = ""
        self._chunks: Iterator[Chunk] = iter(())
        self._number = 0

    def answer(self, request: Message, send: Callable[[Message], None]) -> Message:
        """The chunk, or an empty message after the last."""
        path, before = request["path"], self._path
        self._path = ""  # until this succeeds: a decoder that has failed must not look like one at its end
        if (path, request["number"]) != (before, self._number):
            self._number = 0
            self._chunks = chunks(
                Path(path),
                seconds=LONGEST_S,
                search_s=LONGEST_S - SHORTEST_S,
                rate=RATE,
                beat=lambda: send({}),
            )
        answer: Message = {}
        for chunk in self._chunks:
            send({})
            self._number += 1
            if self._number > request["number"]:
                answer = _encoded(chunk)
                break
        self._path = path
        return answer


def _encoded(chunk: Chunk) -> Message:
    return {
        "start_ms": chunk.start_ms,
        "length_ms": len(chunk.samples) * 1000 // RATE,
        "silent": bool(abs(chunk.samples).max(initial=0.0) <= SILENT_PEAK),
        "flac": base64.b64encode(flac(chunk.samples)).decode(),
    }


def flac(samples: NDArray[np.float32]) -> bytes:
    """Samples (mono, 16 kHz, -1 to 1) as the bytes of a FLAC file."""
    file = io.BytesIO()
    write_flac(file, [samples])
    return file.getvalue()


def write_flac(file: BinaryIO, sound: Iterable[NDArray[np.float32]]) -> None:
    """Write samples (mono, 16 kHz, -1 to 1) to a FLAC file. They come in portions; one at a time is held."""
    import av
    import numpy as np

    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        for samples in sound:
            integers = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(integers.reshape(1, -1), format="s16", layout="mono")
            frame.rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def serve_encoder(answer: Callable[[Message, Callable[[Message], None]], Message]) -> None:
    """Run as a confined subprocess that encodes FLAC; see `subprocess_worker.serve`."""
    begin(file_size=_FILE_SIZE)
    import av  # noqa: F401  (imported here, so that the first request does not wait for it)

    serve(answer)


def main() -> None:
    """The subprocess: `python -m agents.media.flac_chunks`."""
    serve_encoder(_ChunkServer().answer)


if __name__ == "__main__":
    main()
