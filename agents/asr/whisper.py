"""Whisper on this machine's own processors, through faster-whisper: one worker process a recognizer, the model loaded
there once.

How it listens was chosen by measuring, on read speech clean, in noise and through a telephone's band:

* Beam 5 halves the errors of greedy decoding for a fifth more time. Earlier text as a prompt does not help, and lets
  Whisper repeat itself. The request's vocabulary as a prompt makes tiny.en invent sentences; it is not used.
* Silence is cut out before recognition (by Silero's detector), because Whisper invents words in long silence and loses
  some after it. But at that detector's usual threshold of 0.5 half of all telephone speech is taken for silence: word
  error rates of 56 % instead of 4 %. At 0.05 nothing is lost.
* What is left is cut at pauses into windows that Whisper hears whole. Left to cut every 30 seconds by itself, it loses
  sentences at the seams of fluent speech: 4.6 % of the words wrong instead of 3.0 % (tiny.en), 3.1 % instead of 1.7 %
  (base), for a quarter more time.
* A window in which the detector never comes near to being sure holds no speech, and is not listened to: noise costs
  Whisper most time of all. What it makes of the noise that is left, it knows itself to be unlikely speech: such
  segments are dropped.
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
from agents.media.decoding.decoder import Piece, pieces
from agents.media.subprocess_worker import Died, Message, Worker, begin, serve
from schemas.errors import ConcordError, ProviderError, Transient, Unavailable
from schemas.words import Hypothesis, Word

if TYPE_CHECKING:
    import numpy as np
    from faster_whisper import WhisperModel
    from numpy.typing import NDArray

#: How faster-whisper is asked; see above.
OPTIONS: dict[str, Any] = {
    "beam_size": 5,
    "temperature": (0.0, 0.4, 0.8),
    "condition_on_previous_text": False,
    "word_timestamps": True,
}
#: How the detector tells speech from silence; see above.
DETECTION = {"threshold": 0.05, "neg_threshold": 0.03, "min_silence_duration_ms": 500, "speech_pad_ms": 400}
#: Seconds of a recording that are held and searched for speech at once: the detector takes 1 MB for each.
PIECE_S = 120.0
#: Seconds: the longest window. Whisper's own is 30, and its last word must have an end.
WINDOW_S = 26.0
#: Probability of speech, over a sixth of a second, that a window must reach somewhere. Hiss and music stay below 0.15,
#: except where very loud; a short sentence through a telephone reaches 0.55, anything else 0.9.
SPEECH = 0.25
#: A segment that is improbably speech and improbably right is noise: (no_speech_prob above, avg_logprob below).
NOISE = (0.75, -0.5)
#: Probability from which the language of a window is believed for the rest of the recording.
SURE_LANGUAGE = 0.7

#: Hertz: what Whisper hears.
_RATE = 16_000
#: Bytes of address space that the worker process may take besides four times its model: base (0.15 GB) takes 0.85 in
#: all.
_MEMORY = 3 << 30
#: BCP 47 subtags that Whisper calls otherwise.
_TO_WHISPER = {"jv": "jw", "nb": "no", "fil": "tl", "iw": "he", "in": "id", "cmn": "zh"}
_FROM_WHISPER = {"jw": "jv"}
#: Languages written without spaces: what faster-whisper gives without a space before it is a word there. Elsewhere it
#: is the rest of the word before ("ill" and "-disposed").
_UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})


class Whisper:
    """A `LocalRecognizer`: one of Whisper's models. Recordings wait for each other."""

    def __init__(
        self,
        name: str,
        model: Callable[[], Path],
        *,
        cpu_threads: int | None = None,
        stall_s: float = 600.0,
        start_s: float = 120.0,
    ) -> None:
        """`model` finds the folder with the weights, when they are first needed; it may take its time, and raise.

        `cpu_threads` is half of the processors if not given. A worker without progress for `stall_s` is killed.
        """
        self.name = name
        self._model = model
        self._threads = cpu_threads or max(1, _processors() // 2)
        self._stall_s, self._start_s = stall_s, start_s
        self._worker: Worker | None = None
        self._finding = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The worker's process id while it lives."""
        return self._worker.pid if self._worker is not None else None

    async def transcribe(self, audio: Path, request: Request, progress: Callable[[float], None]) -> Hypothesis:
        """See `LocalRecognizer`. Cancelling kills the worker process; the next recording starts another."""
        worker = await self._found()
        words: list[Word] = []

        def hear(message: Message) -> None:
            words.extend(Word(text, start, end, p) for text, start, end, p in message.get("words", ()))
            if request.duration_ms:
                progress(min(0.99, message["at_ms"] / request.duration_ms))

        order = {"path": str(audio.resolve()), "language": request.language}
        try:
            answer = await worker.ask(order, stall_s=self._stall_s, hear=hear)
        except (Died, Unavailable) as exc:
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

    async def _found(self) -> Worker:
        async with self._finding:
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
        """End the worker process, also in the middle of a recording (`Transient` there). Safe to call twice."""
        self._closed = True
        if self._worker is not None:
            await self._worker.close()


def _checked(model: Callable[[], Path]) -> Path:
    """The folder with the weights, if everything is there to use it."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise ProviderError("faster-whisper is not installed: run `make install` (it is in the extra `local`)")
    folder = model()
    for name in ("model.bin", "config.json", "tokenizer.json"):  # without the last, the internet would be asked for it
        if not (folder / name).is_file():
            raise ProviderError(f"{folder} has no {name}: take the whole folder of a CTranslate2 Whisper model")
    return folder


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


# What follows runs in the worker process.


@dataclass
class _Language:
    """Which language is spoken: asked for, or detected in the first windows until the model is sure."""

    #: As Whisper calls it; None while not known.
    code: str | None
    #: As it was asked for, or None.
    asked: str | None
    probability: float | None = None
    settled: bool = False

    def detected(self, code: str, probability: float) -> None:
        """What the model heard in a window that had words."""
        if not self.settled and probability > (self.probability or 0.0):
            self.code, self.probability = code, round(probability, 4)
            self.settled = probability >= SURE_LANGUAGE

    @property
    def tag(self) -> str | None:
        """BCP 47."""
        return self.asked or (_FROM_WHISPER.get(self.code, self.code) if self.code else None)


def _language(asked: str, supported: list[str]) -> _Language:
    if supported == ["en"] and asked.split("-", maxsplit=1)[0].lower() in {"auto", "en"}:
        return _Language("en", "en" if asked == "auto" else asked, settled=True)
    if asked == "auto":
        return _Language(None, None)
    code = asked.split("-", maxsplit=1)[0].lower()
    code = _TO_WHISPER.get(code, code)
    if supported == ["en"]:
        raise ProviderError(f"it hears English only, not {asked!r}: use a model without .en in its name")
    if code not in supported:
        raise ProviderError(f"it does not know the language {asked!r}: use one that Whisper speaks, or 'auto'")
    return _Language(code, asked, settled=True)


def _recognize(model: WhisperModel, request: Message, tell: Callable[[Message], None]) -> Message:
    language = _language(request["language"], model.supported_languages)
    end_ms = 0
    path = Path(request["path"])
    for piece in pieces(path, seconds=PIECE_S, search_s=20.0, rate=_RATE, beat=lambda: tell({})):
        for window in _windows(piece):
            known = language.code if language.settled else None
            segments, info = model.transcribe(window.samples, language=known, **OPTIONS)
            words = _words(segments, window, joined=info.language not in _UNSPACED)
            if words and known is None:
                language.detected(info.language, info.language_probability)
            tell({"words": words, "at_ms": window.end_ms})
        end_ms = piece.start_ms + len(piece.samples) * 1000 // _RATE
        tell({"at_ms": end_ms})
    details = {} if language.probability is None else {"language_probability": language.probability}
    several = len(model.supported_languages) > 1
    return {"language": language.tag, "tells_language": several, "duration_ms": end_ms, "details": details}


@dataclass(frozen=True)
class _Window:
    """Stretches of speech, put end to end."""

    samples: NDArray[np.float32]
    #: Of each stretch: its start in the window and in the recording, in ms.
    starts: tuple[tuple[int, int], ...]
    #: Where the last ends in the recording.
    end_ms: int

    def times(self, start_s: float, end_s: float) -> tuple[int, int]:
        """When a word was said in the recording, in ms; one across a cut belongs to where its middle is."""
        middle = (start_s + end_s) * 500
        shift = next(there - here for here, there in reversed(self.starts) if here <= middle or here == 0)
        start, end = (min(self.end_ms, max(0, round(at * 1000) + shift)) for at in (start_s, end_s))
        return start, max(start, end)


def _windows(piece: Piece) -> Iterator[_Window]:
    """What is worth listening to in a piece."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    group: list[tuple[int, int]] = []
    for found in get_speech_timestamps(piece.samples, VadOptions(max_speech_duration_s=WINDOW_S, **DETECTION)):
        stretch = (found["start"], found["end"])
        if sum(end - start for start, end in (*group, stretch)) > WINDOW_S * _RATE:
            yield from _window(piece, group)
            group = []
        group.append(stretch)
    yield from _window(piece, group)


def _window(piece: Piece, stretches: list[tuple[int, int]]) -> Iterator[_Window]:
    """The window of these stretches (in samples), unless it is empty or surely no speech."""
    import numpy as np

    if not stretches:
        return
    samples = np.concatenate([piece.samples[start:end] for start, end in stretches])
    if not _speech(samples):
        return
    starts, length = [], 0
    for start, end in stretches:
        starts.append((length * 1000 // _RATE, piece.start_ms + start * 1000 // _RATE))
        length += end - start
    yield _Window(samples, tuple(starts), piece.start_ms + stretches[-1][1] * 1000 // _RATE)


def _speech(samples: NDArray[np.float32]) -> bool:
    import numpy as np
    from faster_whisper.vad import get_vad_model

    step = 512  # the detector's, in samples: 32 ms
    sure = get_vad_model()(np.pad(samples, (0, -len(samples) % step))).reshape(-1)
    return bool(np.convolve(sure, np.full(5, 0.2), "same").max() >= SPEECH)


def _words(segments: Any, window: _Window, *, joined: bool) -> list[list[Any]]:
    """The words of a window as [text, start_ms, end_ms, probability], in order. `joined` says that words are told apart
    by spaces.
    """
    words: list[list[Any]] = []
    for segment in segments:
        if segment.no_speech_prob > NOISE[0] and segment.avg_logprob < NOISE[1]:
            continue
        for word in segment.words or ():
            start, end = window.times(word.start, word.end)
            text, probability = word.word.strip(), round(float(word.probability), 4)
            before = words[-1] if words else None
            if before and joined and not word.word.startswith(" "):
                words[-1] = [before[0] + text, before[1], max(end, before[2]), min(before[3], probability)]
            elif text:
                start = max(start, before[1]) if before else start
                words.append([text, start, max(start, end), probability])
    return words


def main(folder: str, threads: str) -> None:
    """The worker process: `python -m agents.asr.whisper FOLDER THREADS`."""
    begin(memory=_MEMORY + 4 * (Path(folder) / "model.bin").stat().st_size)
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))
    serve(lambda request, tell: _recognize(model, request, tell))


if __name__ == "__main__":
    main(*sys.argv[1:])
