"""Whisper on this machine's CPUs, through faster-whisper: one subprocess per recognizer, which loads the model once.

Its options were chosen by measurements on read speech: clean, with noise, and limited to a telephone's band.

* Beam size 5 halves the errors of greedy decoding for a fifth more time. Earlier text as a prompt does not help, and
  makes Whisper repeat itself. The request's vocabulary as a prompt makes tiny.en invent sentences; it is not used.
* Silence is removed before recognition (with Silero's voice activity detector), because Whisper invents words in long
  silence and loses words after it. At the detector's usual threshold of 0.5, half of all telephone speech is taken for
  silence: word error rates of 56 % instead of 4 %. At 0.05 nothing is lost.
* The rest is cut at pauses into windows of less than 30 seconds. If Whisper itself cuts every 30 seconds, it loses
  sentences at the cuts of fluent speech: 4.6 % of the words are wrong instead of 3.0 % (tiny.en), 3.1 % instead of
  1.7 % (base), for a quarter more time.
* A window in which the detector's probability is never high contains no speech and is skipped: Whisper takes most time
  for noise. Segments that Whisper itself rates as improbable speech are dropped; so are improbable words of a window in
  which the detector is not sure: of 18 minutes of recorded music on hold, tiny.en made "Thank you for watching!".
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.asr.protocols import Request
from agents.media.decoding.chunks import Chunk, chunks
from agents.media.subprocess_worker import Message, Worker, WorkerDied, begin, serve
from schemas.errors import ConcordError, ProviderError, Transient, Unavailable
from schemas.texts import REPLACEMENT, is_part
from schemas.words import Hypothesis, Word

if TYPE_CHECKING:
    import numpy as np
    from faster_whisper import WhisperModel
    from numpy.typing import NDArray

#: Options of faster-whisper; see above.
OPTIONS: dict[str, Any] = {
    "beam_size": 5,
    "temperature": (0.0, 0.4, 0.8),
    "condition_on_previous_text": False,
    "word_timestamps": True,
}
#: Options of the voice activity detector; see above.
DETECTION = {"threshold": 0.05, "neg_threshold": 0.03, "min_silence_duration_ms": 500, "speech_pad_ms": 400}
#: Seconds of a recording that are held and searched for speech at once: the detector needs 1 MB for each.
CHUNK_S = 120.0
#: Seconds of the longest window. Whisper's own has 30, and the last word must end within it.
WINDOW_S = 26.0
#: Probability of speech, averaged over a sixth of a second, that a window must reach somewhere. Hiss and music stay
#: below 0.15 unless they are very loud; a short sentence through a telephone reaches 0.55, other speech 0.9.
SPEECH = 0.25
#: The same, from which it is certain that the window contains speech; below, segments with an `avg_logprob` below the
#: second value are noise. Music on hold: 0.29 and 0.34 with -1.4; see `SPEECH` for speech.
CERTAIN = (0.5, -0.8)
#: A segment is noise if its `no_speech_prob` is above the first value and its `avg_logprob` below the second.
NOISE = (0.75, -0.5)
#: Probability from which the language of a window is used for the rest of the recording.
SURE_LANGUAGE = 0.7

#: Hertz: Whisper's sample rate.
_RATE = 16_000
#: Bytes of address space of the subprocess, in addition to four times its model: base (0.15 GB) takes 0.85 GB in all.
_MEMORY = 3 << 30
#: BCP 47 subtags for which Whisper has other codes.
_TO_WHISPER = {"jv": "jw", "nb": "no", "fil": "tl", "iw": "he", "in": "id", "cmn": "zh"}
_FROM_WHISPER = {"jw": "jv"}
#: Languages that are written without spaces. In others, a token of faster-whisper without a leading space is the rest
#: of the previous word ("ill" and "-disposed"); in these only if its letters say so (`is_part`): a word of another
#: language comes in parts (" Har", "ry"), a Thai letter and its vowel as two words.
UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})


class Whisper:
    """One of Whisper's models as a `LocalRecognizer`. Concurrent recordings wait for each other."""

    def __init__(
        self,
        name: str,
        model: Callable[[], Path],
        *,
        cpu_threads: int | None = None,
        stall_s: float = 600.0,
        start_s: float = 120.0,
    ) -> None:
        """`model` returns the folder with the weights. It is called in a thread, when they are first needed.

        `cpu_threads` is half of the CPUs by default. The subprocess must start within `start_s` seconds, and is killed
        after `stall_s` seconds without progress.
        """
        self.name = name
        self._model = model
        self._threads = cpu_threads or max(1, _processors() // 2)
        self._stall_s, self._start_s = stall_s, start_s
        self._worker: Worker | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The subprocess while it lives."""
        return self._worker.pid if self._worker is not None else None

    async def transcribe(self, audio: Path, request: Request, progress: Callable[[float], None]) -> Hypothesis:
        """See `LocalRecognizer`. Cancelling kills the subprocess; the next recording starts another."""
        worker = await self._opened()
        words: list[Word] = []

        def add(message: Message) -> None:
            words.extend(Word(text, start, end, p) for text, start, end, p in message.get("words", ()))
            if request.duration_ms:
                progress(min(0.99, message["at_ms"] / request.duration_ms))

        task = {"path": str(audio.resolve()), "language": request.language}
        try:
            answer = await worker.ask(task, stall_s=self._stall_s, on_message=add)
        except (WorkerDied, Unavailable) as exc:
            raise Transient(f"{self.name}: {exc}") from exc
        except TimeoutError as exc:
            raise Transient(f"{self.name} made no progress for {self._stall_s:.0f} s and was killed") from exc
        except ConcordError as exc:
            raise type(exc)(f"{self.name}: {exc}") from exc
        progress(1.0)
        return self._hypothesis(tuple(words), answer)

    def _hypothesis(self, words: tuple[Word, ...], answer: Message) -> Hypothesis:
        confidences = [word.confidence for word in words if word.confidence is not None]
        return Hypothesis(
            provider=self.name,
            words=words,
            language=answer["language"],
            tells_language=answer["tells_language"],
            duration_ms=answer["duration_ms"],
            confidence=round(sum(confidences) / len(confidences), 4) if confidences else None,
            model=self.name,
            details=answer["details"],
        )

    async def _opened(self) -> Worker:
        async with self._opening:
            if self._closed:
                raise Transient(f"{self.name} is shut down")
            if self._worker is None:
                try:
                    folder = await asyncio.to_thread(_checked, self._model)
                except ConcordError as exc:
                    raise ProviderError(f"{self.name}: {exc}") from exc
                arguments = (str(folder.resolve()), str(self._threads))
                self._worker = Worker("agents.asr.whisper", *arguments, start_s=self._start_s)
            return self._worker

    async def close(self) -> None:
        """End the subprocess, also in the middle of a recording, whose call raises `Transient`. Safe to call twice."""
        self._closed = True
        if self._worker is not None:
            await self._worker.close()


def _checked(model: Callable[[], Path]) -> Path:
    """The folder with the weights. Raises `ProviderError` if a file or faster-whisper itself is missing."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise ProviderError("faster-whisper is not installed: run `make install` (it is in the extra `local`)")
    folder = model()
    for name in ("model.bin", "config.json", "tokenizer.json"):  # faster-whisper would download a missing tokenizer
        if not (folder / name).is_file():
            raise ProviderError(f"{folder} has no {name}: take the whole folder of a CTranslate2 Whisper model")
    return folder


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


# What follows runs in the subprocess.


@dataclass
class _Language:
    """The language of a recording: requested, or detected in the first windows until the model is sure."""

    #: Whisper's code; None while it is not known.
    code: str | None
    #: The requested language as BCP 47, or None.
    requested: str | None
    probability: float | None = None
    settled: bool = False

    def detected(self, code: str, probability: float) -> None:
        """Take the language that the model detected in a window with words, if it is the most probable so far."""
        if not self.settled and probability > (self.probability or 0.0):
            self.code, self.probability = code, round(probability, 4)
            self.settled = probability >= SURE_LANGUAGE

    @property
    def tag(self) -> str | None:
        """The language as BCP 47, or None while it is not known."""
        return self.requested or (_FROM_WHISPER.get(self.code, self.code) if self.code else None)


def _language(requested: str, supported: list[str]) -> _Language:
    if supported == ["en"] and requested.split("-", maxsplit=1)[0].lower() in {"auto", "en"}:
        return _Language("en", "en" if requested == "auto" else requested, settled=True)
    if requested == "auto":
        return _Language(None, None)
    code = requested.split("-", maxsplit=1)[0].lower()
    code = _TO_WHISPER.get(code, code)
    if supported == ["en"]:
        raise ProviderError(f"it recognizes English only, not {requested!r}: use a model without .en in its name")
    if code not in supported:
        raise ProviderError(f"it does not know the language {requested!r}: use one that Whisper supports, or 'auto'")
    return _Language(code, requested, settled=True)


def _recognize(model: WhisperModel, request: Message, send: Callable[[Message], None]) -> Message:
    language = _language(request["language"], model.supported_languages)
    end_ms = 0
    path = Path(request["path"])
    for chunk in chunks(path, seconds=CHUNK_S, search_s=20.0, rate=_RATE, beat=lambda: send({})):
        for window in windows(chunk):
            code = language.code if language.settled else None
            segments, info = model.transcribe(window.samples, language=code, **OPTIONS)
            words = words_of(segments, window, spaced=info.language not in UNSPACED)
            if words and code is None:
                language.detected(info.language, info.language_probability)
            send({"words": words, "at_ms": window.end_ms})
        end_ms = chunk.start_ms + len(chunk.samples) * 1000 // _RATE
        send({"at_ms": end_ms})
    details = {} if language.probability is None else {"language_probability": language.probability}
    several = len(model.supported_languages) > 1
    return {"language": language.tag, "tells_language": several, "duration_ms": end_ms, "details": details}


@dataclass(frozen=True)
class Window:
    """Intervals of speech, joined without the pauses between them."""

    samples: NDArray[np.float32]
    #: Of each interval: its start in the window and in the recording, in ms.
    starts: tuple[tuple[int, int], ...]
    #: The end of the last interval in the recording.
    end_ms: int
    #: The detector's highest probability of speech in it.
    speech: float = 1.0

    def times(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Start and end of a word in the recording, in ms, from those in the window, in seconds.

        A word across a cut belongs to the interval that contains its middle.
        """
        middle = (start_s + end_s) * 500
        shift = next(original - here for here, original in reversed(self.starts) if here <= middle or here == 0)
        start, end = (min(self.end_ms, max(0, round(time_s * 1000) + shift)) for time_s in (start_s, end_s))
        return start, max(start, end)


def windows(chunk: Chunk) -> Iterator[Window]:
    """The windows of a chunk that contain speech."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    group: list[tuple[int, int]] = []
    for speech in get_speech_timestamps(chunk.samples, VadOptions(max_speech_duration_s=WINDOW_S, **DETECTION)):
        interval = (speech["start"], speech["end"])
        if sum(end - start for start, end in (*group, interval)) > WINDOW_S * _RATE:
            yield from _window(chunk, group)
            group = []
        group.append(interval)
    yield from _window(chunk, group)


def _window(chunk: Chunk, intervals: list[tuple[int, int]]) -> Iterator[Window]:
    """The window of these intervals (in samples), unless it is empty or certainly contains no speech."""
    import numpy as np

    if not intervals:
        return
    samples = np.concatenate([chunk.samples[start:end] for start, end in intervals])
    speech = _speech(samples)
    if speech < SPEECH:
        return
    starts, length = [], 0
    for start, end in intervals:
        starts.append((length * 1000 // _RATE, chunk.start_ms + start * 1000 // _RATE))
        length += end - start
    yield Window(samples, tuple(starts), chunk.start_ms + intervals[-1][1] * 1000 // _RATE, speech)


def _speech(samples: NDArray[np.float32]) -> float:
    """The detector's highest probability of speech, averaged over a sixth of a second."""
    import numpy as np
    from faster_whisper.vad import get_vad_model

    step = 512  # samples of one probability of the detector: 32 ms
    probabilities = get_vad_model()(np.pad(samples, (0, -len(samples) % step))).reshape(-1)
    return float(np.convolve(probabilities, np.full(5, 0.2), "same").max())


def words_of(segments: Any, window: Window, *, spaced: bool) -> list[list[Any]]:
    """The words of a window as [text, start_ms, end_ms, probability], in order. `spaced`: words begin with a space."""
    words: list[list[Any]] = []
    for word in _words_of_speech(segments, window):
        start, end = window.times(word.start, word.end)
        text, probability = word.word.replace(REPLACEMENT, "").strip(), round(float(word.probability), 4)
        before = words[-1] if words else None
        if before and not word.word.startswith(" ") and (spaced or is_part(before[0], text)):
            words[-1] = [before[0] + text, before[1], max(end, before[2]), min(before[3], probability)]
        elif text:
            start = max(start, before[1]) if before else start
            words.append([text, start, max(start, end), probability])
    return words


def _words_of_speech(segments: Any, window: Window) -> Iterator[Any]:
    """The words of all segments but those that are noise by the model's and the detector's probabilities."""
    for segment in segments:
        noise = segment.no_speech_prob > NOISE[0] and segment.avg_logprob < NOISE[1]
        if not (noise or (window.speech < CERTAIN[0] and segment.avg_logprob < CERTAIN[1])):
            yield from segment.words or ()


def main(folder: str, threads: str) -> None:
    """The subprocess: `python -m agents.asr.whisper FOLDER THREADS`."""
    begin(memory=_MEMORY + 4 * (Path(folder) / "model.bin").stat().st_size)
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))
    serve(lambda request, send: _recognize(model, request, send))


if __name__ == "__main__":
    main(*sys.argv[1:])
