"""Moonshine Base (English) on this machine's CPUs: another family than Whisper, which therefore errs elsewhere.

Its authors' model (Jeffries et al. 2024, arXiv:2410.15608; MIT) through the ONNX Runtime that faster-whisper brings. It
hears the same windows as Whisper does (`speech_windows`), takes the most probable token at each step, and needs half of
the processor's time of Whisper base.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.asr.speech_windows import RATE, Window, end_ms, recording_in_parts, require_detector, windows
from agents.asr.subprocess_recognizer import SubprocessRecognizer
from agents.media.subprocess_worker import Message, begin, serve
from schemas.errors import ProviderError

if TYPE_CHECKING:
    from agents.asr.moonshine.model import Model

#: Bytes of address space of the subprocess.
_MEMORY = 3 << 30


class Moonshine(SubprocessRecognizer):
    """A Moonshine model as a `LocalRecognizer`."""

    def __init__(self, name: str, model: Callable[[], Path], **limits: Any) -> None:
        """`model` returns the folder of the converted model; `limits` are those of `SubprocessRecognizer`."""
        super().__init__(name, "agents.asr.moonshine.recognizer", partial(_checked, model), **limits)


def _checked(model: Callable[[], Path]) -> Path:
    """The model's folder. Raises `ProviderError` if faster-whisper, whose runtime and detector are used, is missing."""
    require_detector()
    return model()


# What follows runs in the subprocess.


def _language(requested: str) -> str:
    """The requested language as BCP 47; it must be English."""
    if requested == "auto":
        return "en"
    if requested.split("-", maxsplit=1)[0].lower() != "en":
        raise ProviderError(f"it recognizes English only, not {requested!r}: use whisper-base")
    return requested


def _recognize(model: Model, request: Message, send: Callable[[Message], None]) -> Message:
    language = _language(request["language"])
    duration_ms = 0
    for part in recording_in_parts(request, beat=lambda: send({})):
        for window in windows(part.chunk):
            send({"words": _words(model, window), "at_ms": window.end_ms, **part.labels})
        duration_ms = max(duration_ms, part_end := end_ms(part.chunk))
        send({"at_ms": part_end, **part.labels})
    return {"language": language, "tells_language": False, "duration_ms": duration_ms, "details": {}}


def _words(model: Model, window: Window) -> list[list[Any]]:
    """The words of a window as [text, start_ms, end_ms, probability], in order."""
    from agents.asr.moonshine.words import words

    found: list[list[Any]] = []
    for text, start_s, end_s, probability in words(model.hear(window.samples), len(window.samples) / RATE):
        start, end = window.times(start_s, end_s)
        start = max(start, found[-1][1]) if found else start
        found.append([text, start, max(start, end), round(probability, 4)])
    return found


def main(folder: str, threads: str) -> None:
    """The subprocess: `python -m agents.asr.moonshine.recognizer FOLDER THREADS`."""
    begin(memory=_MEMORY)
    from agents.asr.moonshine.model import Model

    model = Model(Path(folder), int(threads))
    serve(lambda request, send: _recognize(model, request, send))


if __name__ == "__main__":
    main(*sys.argv[1:])
