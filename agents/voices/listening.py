"""Tells voices apart in a subprocess: a vector for every quarter of a second of speech, and clusters of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from agents.media.subprocess_worker import Message, Worker, WorkerDied, begin, serve
from agents.text.speakers.attribution import Voices
from agents.text.speakers.prints import VoicePrint
from agents.voices.windows import LEAST_RANGE_DB, LEAST_S, owners, range_db, selected
from schemas.errors import ConcordError, ProviderError, Transient, Unavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.voices.encoder import Encoder

    Floats = NDArray[np.float32]

#: Milliseconds between the middles of two windows.
STEP_MS: Final = 250
#: Milliseconds of a pause in speech that is listened to.
PAUSE_MS: Final = 300
#: Share of a window that is speech if it is to say what the voices sound like.
FULL: Final = 0.7
#: Seconds of sound that are held at once, and windows that are computed at once.
BLOCK_S, BATCH = 60, 64
#: Bytes of address space of the subprocess.
_MEMORY: Final = 2 << 30


class Listener:
    """A `VoiceListener` in one subprocess, which loads the model once; concurrent calls wait for each other."""

    def __init__(self, folder: Callable[[], Path], *, stall_s: float = 120.0) -> None:
        """`folder` returns the folder of the model; it is called in a thread, when the model is first needed."""
        self._folder, self._stall_s = folder, stall_s
        self._worker: Worker | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The subprocess while it lives."""
        return self._worker.pid if self._worker is not None else None

    async def listen(
        self,
        audio: Path,
        speech: Sequence[tuple[int, int]],
        speakers: int | None,
        progress: Callable[[float], None],
    ) -> Voices:
        """See `VoiceListener`. Cancelling kills the subprocess; the next call starts another."""
        task = {"speech": [list(interval) for interval in speech], "speakers": speakers}
        answer = await self._ask(audio, task, progress)
        alike = np.array(answer["alike"] or np.zeros((0, 0)), dtype=np.float64)
        return Voices(np.array(answer["times_ms"], dtype=np.int64), alike)

    async def prints(
        self, audio: Path, speech: Mapping[str, Sequence[tuple[int, int]]], progress: Callable[[float], None]
    ) -> dict[str, VoicePrint]:
        """See `VoiceListener`."""
        task = {"by_speaker": {name: [list(one) for one in intervals] for name, intervals in speech.items()}}
        answer = await self._ask(audio, task, progress)
        return {
            name: VoicePrint(answer["model"], np.array(vector, dtype="<f4").tobytes(), seconds)
            for name, (vector, seconds) in answer["prints"].items()
        }

    async def _ask(self, audio: Path, task: Message, progress: Callable[[float], None]) -> Message:
        worker = await self._opened()
        task = {"path": str(audio.resolve()), **task}
        try:
            answer = await worker.ask(
                task, stall_s=self._stall_s, on_message=lambda message: progress(message["share"])
            )
        except (WorkerDied, Unavailable) as exc:
            raise Transient(f"telling voices apart: {exc}") from exc
        except TimeoutError as exc:
            raise Transient(f"telling voices apart made no progress for {self._stall_s:.0f} s and was killed") from exc
        progress(1.0)
        return answer

    async def _opened(self) -> Worker:
        async with self._opening:
            if self._closed:
                raise Transient("telling voices apart is shut down")
            if self._worker is None:
                try:
                    folder = await asyncio.to_thread(self._folder)
                except ConcordError as exc:
                    raise ProviderError(str(exc)) from exc
                self._worker = Worker("agents.voices.listening", str(folder.resolve()))
            return self._worker

    async def close(self) -> None:
        """End the subprocess, also in the middle of a recording. Safe to call twice."""
        self._closed = True
        if self._worker is not None:
            await self._worker.close()


# What follows runs in the subprocess.


def _answer(encoder: Encoder, request: Message, send: Callable[[Message], None]) -> Message:
    from agents.voices.clustering import voices

    if "by_speaker" in request:
        return _prints(encoder, request, send)
    speech = _joined(request["speech"])
    times, vectors, full = [], [], []
    length = max((end for _, end in speech), default=0)
    for time_ms, windows, shares in _windows(Path(request["path"]), speech, lambda: send({})):
        send({"share": min(0.99, float(time_ms[-1]) / length)})
        times.append(time_ms)
        vectors.append(encoder.vectors(windows))
        full.append(shares >= FULL)
    if not times:
        return {"times_ms": [], "alike": []}
    every, of_voices = np.concatenate(vectors), np.concatenate(full)
    means = voices(every[of_voices] if of_voices.any() else every, request["speakers"])
    return {
        "times_ms": np.concatenate(times).tolist(),
        "alike": np.round(_contrast(every @ means.T, means), 3).tolist(),
    }


def _prints(encoder: Encoder, request: Message, send: Callable[[Message], None]) -> Message:
    """The mean of the windows in which a speaker is heard alone, by speaker.

    Only a telephone's band is listened to: with all of the sound, one speaker's prints of a clean recording and of a
    telephone call were as far apart (0.62 to 0.80) as those of different people.
    """
    from agents.voices.encoder import MODEL, telephone_band

    by_speaker = {name: _joined(intervals) for name, intervals in request["by_speaker"].items()}
    speech = _joined([one for intervals in by_speaker.values() for one in selected(intervals)])
    length = max((end for _, end in speech), default=0)
    sums: dict[str, Floats] = {}
    powers: dict[str, list[Floats]] = {}
    for time_ms, windows, _ in _windows(Path(request["path"]), speech, lambda: send({}), telephone_band):
        send({"share": min(0.99, float(time_ms[-1]) / length)})
        owned = [(row, name) for row, name in enumerate(owners(by_speaker, time_ms)) if name is not None]
        vectors = encoder.vectors(windows[[row for row, _ in owned]]) if owned else ()
        for vector, (row, name) in zip(vectors, owned, strict=True):
            sums[name] = sums.get(name, 0) + vector
            powers.setdefault(name, []).append(windows[row].sum(axis=1))
    seconds = {name: len(frames) * STEP_MS / 1000 for name, frames in powers.items()}
    long = [name for name, length_s in seconds.items() if length_s >= LEAST_S]
    known = [name for name in long if range_db(powers[name]) >= LEAST_RANGE_DB]
    units = {name: sums[name] / np.linalg.norm(sums[name]) for name in known}
    return {"model": MODEL, "prints": {name: (units[name].tolist(), seconds[name]) for name in known}}


def _contrast(cosines: Floats, means: Floats) -> Floats:
    """The cosines, stretched so that a mean vector is 1 like its own voice and 0 like others, on average."""
    count = len(means)
    if count < 2:
        return np.ones_like(cosines)
    others = float((means @ means.T).sum() - count) / (count * (count - 1))
    stretched: Floats = (cosines - others) / max(1 - others, 0.02)
    return stretched


def _joined(speech: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The intervals in order, those joined that are near each other."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted((start, end) for start, end in speech):
        if joined and start - joined[-1][1] <= PAUSE_MS:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _windows(
    path: Path,
    speech: Sequence[tuple[int, int]],
    beat: Callable[[], None],
    band: Callable[[Floats], Floats] = lambda samples: samples,
) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
    """Batches of windows whose middle is speech: middles in ms, (windows, WINDOW, BANDS), shares of speech.

    Holds a minute of the recording.
    """
    from agents.voices.encoder import BANDS, HOP, RATE, WINDOW

    frame_ms, step = 1000 * HOP // RATE, STEP_MS * RATE // HOP // 1000
    half = WINDOW // 2
    held, first = np.zeros((half, BANDS), dtype=np.float32), -half
    for bands in (*_bands(path, beat, band), np.zeros((half, BANDS), dtype=np.float32)):
        held = np.concatenate([held, bands])
        middles = np.arange(-(-(first + half) // step) * step, first + len(held) - half, step)
        spoken = _is_speech(first * frame_ms, len(held), frame_ms, speech)
        middles = middles[spoken[middles - first]]
        for start in range(0, len(middles), BATCH):
            batch = middles[start : start + BATCH]
            rows = (batch - half - first)[:, None] + np.arange(WINDOW)
            yield batch * frame_ms, held[rows], spoken[rows].mean(axis=1, dtype=np.float32)
        done = -(-(first + len(held) - half) // step) * step - half - first
        held, first = held[done:], first + done


def _bands(path: Path, beat: Callable[[], None], band: Callable[[Floats], Floats]) -> Iterator[Floats]:
    """The recording's mel bands, in blocks, of what `band` leaves of the sound."""
    from agents.media.decoding.decoder import decode
    from agents.voices.encoder import HOP, RATE, loud, mel

    held: list[Floats] = []
    length = 0
    for samples in decode(path, RATE, beat):
        beat()
        held.append(samples)
        length += len(samples)
        if length >= BLOCK_S * RATE:
            joined = np.concatenate(held)
            whole = length // HOP * HOP
            yield mel(loud(band(joined[:whole])))[: whole // HOP]
            held, length = [joined[whole:]], length - whole
    if length >= HOP:
        yield mel(loud(band(np.concatenate(held))))[: length // HOP]


def _is_speech(start_ms: int, frames: int, frame_ms: int, speech: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Per frame, whether it is within an interval of speech."""
    times = start_ms + np.arange(frames) * frame_ms
    starts, ends = np.array([(-1, -1), *speech]).T
    spoken: NDArray[np.bool_] = times < ends[np.searchsorted(starts, times, side="right") - 1]
    return spoken


def main(folder: str) -> None:
    """The subprocess: `python -m agents.voices.listening FOLDER`."""
    begin(memory=_MEMORY)
    import av  # noqa: F401  (imported here, so that the first request does not wait for it)

    from agents.voices.encoder import Encoder

    encoder = Encoder(Path(folder))
    serve(lambda request, send: _answer(encoder, request, send))


if __name__ == "__main__":
    main(*sys.argv[1:])
