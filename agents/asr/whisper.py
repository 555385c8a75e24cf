"""Whisper on this machine's CPUs or CUDA devices, through faster-whisper, in subprocesses that load the model once.

Its options were chosen by measurements on read speech: clean, with noise, and limited to a telephone's band.

* Beam size 5 halves the errors of greedy decoding for a fifth more time. Earlier text as a prompt does not help, and
  makes Whisper repeat itself. The request's vocabulary as a prompt makes tiny.en invent sentences; it is not used.
* It hears the speech only, in windows cut at pauses: see `speech_windows`. Segments that Whisper itself rates as
  improbable speech are dropped; so are improbable words of a window in which the detector is not sure: of 18 minutes of
  recorded music on hold, tiny.en made "Thank you for watching!".
* Several windows at once (`BatchedInferencePipeline`) are for CUDA only. On CPUs base takes 8 % less processor time so
  (20.5 s for 22.2 s), and makes 27 errors in 465 words instead of 19: it does not try again at another temperature.
"""

from __future__ import annotations

import itertools
import resource
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.asr.speech_windows import RATE, Window, end_ms, recording_in_parts, require_detector, windows
from agents.asr.subprocess_recognizer import SubprocessRecognizer
from agents.asr.whisper_models import Devices, checked_folder, may_use_cuda, placed
from agents.media.subprocess_worker import Message, begin, serve
from schemas.errors import ProviderError
from schemas.texts import REPLACEMENT, is_part

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

#: Options of faster-whisper; see above.
OPTIONS: dict[str, Any] = {
    "beam_size": 5,
    "temperature": (0.0, 0.4, 0.8),
    "condition_on_previous_text": False,
    "word_timestamps": True,
}
#: The detector's probability of speech in a window from which it is certain that it contains speech; below, segments
#: with an `avg_logprob` below the second value are noise. Music on hold: 0.29 and 0.34 with -1.4; see `SPEECH` for
#: speech.
CERTAIN = (0.5, -0.8)
#: A segment is noise if its `no_speech_prob` is above the first value and its `avg_logprob` below the second.
NOISE = (0.75, -0.5)
#: Probability from which the language of a window is used for the rest of the recording.
SURE_LANGUAGE = 0.7

#: Bytes of address space of the subprocess, in addition to four times its model: base (0.15 GB) takes 0.85 GB in all.
_MEMORY = 3 << 30
#: On CUDA: windows of speech that are recognized at once, and open files.
_CUDA_BATCH, _CUDA_FILES = 8, 1024
#: BCP 47 subtags for which Whisper has other codes.
_TO_WHISPER = {"jv": "jw", "nb": "no", "fil": "tl", "iw": "he", "in": "id", "cmn": "zh"}
_FROM_WHISPER = {"jw": "jv"}
#: Languages that are written without spaces. In others, a token of faster-whisper without a leading space is the rest
#: of the previous word ("ill" and "-disposed"); in these only if its letters say so (`is_part`): a word of another
#: language comes in parts (" Har", "ry"), a Thai letter and its vowel as two words.
UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})


class Whisper(SubprocessRecognizer):
    """One of Whisper's models as a `LocalRecognizer`."""

    def __init__(self, name: str, model: Callable[[], Path], devices: Devices | None = None, **limits: Any) -> None:
        """`model` returns the folder with the weights; `limits` are those of `SubprocessRecognizer`."""
        limits = {"processes": (devices or Devices()).arguments} | limits
        super().__init__(name, "agents.asr.whisper", partial(_checked, model), **limits)


def _checked(model: Callable[[], Path]) -> Path:
    """The folder with the weights. Raises `ProviderError` if a file or faster-whisper itself is missing."""
    require_detector()
    return checked_folder(model())


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


def _recognize(model: WhisperModel, batch: int, request: Message, send: Callable[[Message], None]) -> Message:
    language = _language(request["language"], model.supported_languages)
    duration_ms = 0
    for part in recording_in_parts(request, beat=lambda: send({})):
        ready: list[Window] = []
        for window in windows(part.chunk):
            if batch > 1 and language.settled:
                ready.append(window)
                continue
            code = language.code if language.settled else None
            segments, info = model.transcribe(window.samples, language=code, **OPTIONS)
            words = words_of(_shown(segments, send), window, spaced=info.language not in UNSPACED)
            if words and code is None:
                language.detected(info.language, info.language_probability)
            send({"words": words, "at_ms": window.end_ms, **part.labels})
        for window, segments in _batched(model, batch, ready, language.code, send):
            words = words_of(segments, window, spaced=language.code not in UNSPACED)
            send({"words": words, "at_ms": window.end_ms, **part.labels})
        duration_ms = max(duration_ms, part_end := end_ms(part.chunk))
        send({"at_ms": part_end, **part.labels})
    details = {} if language.probability is None else {"language_probability": language.probability}
    several = len(model.supported_languages) > 1
    return {"language": language.tag, "tells_language": several, "duration_ms": duration_ms, "details": details}


def _shown(segments: Iterable[Any], send: Callable[[Message], None]) -> Iterator[Any]:
    """The segments of a window, between which the work can be stopped."""
    for segment in segments:
        send({})
        yield segment


def _batched(
    model: WhisperModel, batch: int, several: list[Window], code: str | None, send: Callable[[Message], None]
) -> Iterator[tuple[Window, list[Any]]]:
    """The segments of each of these windows, so many of which are recognized at once."""
    if not several:
        return
    import numpy as np
    from faster_whisper import BatchedInferencePipeline

    lengths = [len(window.samples) / RATE for window in several]
    starts = [0.0, *itertools.accumulate(lengths)][:-1]
    clips = [{"start": start, "end": start + length} for start, length in zip(starts, lengths, strict=True)]
    found, _ = BatchedInferencePipeline(model).transcribe(
        np.concatenate([window.samples for window in several]),
        language=code,
        vad_filter=False,
        clip_timestamps=clips,
        batch_size=batch,
        without_timestamps=False,
        **OPTIONS,
    )
    by_window: list[list[Any]] = [[] for _ in several]
    for segment in found:
        number = bisect_right(starts, (segment.start + segment.end) / 2) - 1
        moved = [replace(w, start=w.start - starts[number], end=w.end - starts[number]) for w in segment.words or ()]
        by_window[number].append(replace(segment, words=moved))
        send({})
    yield from zip(several, by_window, strict=True)


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


def _model(folder: str, threads: str, device: str, number: str, compute_type: str) -> tuple[WhisperModel, bool]:
    """The model, and whether it computes with CUDA. Raises `ProviderError` with what to do."""
    import ctranslate2
    from faster_whisper import WhisperModel

    devices = ctranslate2.get_cuda_device_count() if device != "cpu" else 0
    where = placed(device, int(number), compute_type, devices, ctranslate2.get_supported_compute_types)
    try:
        model = WhisperModel(
            folder,
            device=where.device,
            device_index=where.number,
            compute_type=where.compute_type,
            cpu_threads=int(threads),
        )
    except (RuntimeError, ValueError) as exc:
        raise ProviderError(f"the model in {folder} cannot be loaded on {where.device}: {exc}") from exc
    if model.model.n_mels != len(model.feature_extractor.mel_filters):
        raise ProviderError(f"{folder} lacks its preprocessor_config.json: copy it from where the model comes from")
    return model, where.device == "cuda"


def main(
    folder: str, threads: str, device: str = "cpu", number: str = "0", compute_type: str = "", batch: str = ""
) -> None:
    """The subprocess: `python -m agents.asr.whisper FOLDER THREADS DEVICE NUMBER COMPUTE_TYPE BATCH`; see `Devices`."""
    if may_use_cuda(device):  # its driver maps more address space than there is memory, and opens many files
        begin(memory=resource.RLIM_INFINITY, open_files=_CUDA_FILES)
    else:
        begin(memory=_MEMORY + 4 * (Path(folder) / "model.bin").stat().st_size)
    try:
        model, on_cuda = _model(folder, threads, device, number, compute_type)
    except ProviderError as exc:
        refusal = str(exc)  # each recording is told; a process that did not start would be started again and again

        def refuse(_request: Message, _send: Callable[[Message], None]) -> Message:
            raise ProviderError(refusal)

        serve(refuse)
    at_once = int(batch or (_CUDA_BATCH if on_cuda else 1))
    serve(lambda request, send: _recognize(model, at_once, request, send))


if __name__ == "__main__":
    main(*sys.argv[1:])
