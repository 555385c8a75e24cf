"""Calls in seven languages as two multilingual recognizers hear them: makes the recordings, and the hypotheses that
`tests/data/languages` keeps. `python -m bench.languages FOLDER` writes them.

No second multilingual model comes in a package. The other recognizer is therefore Whisper base, too, but decoded
greedily, in Whisper's own windows of 30 seconds, from sound that is 4 % slower: its errors differ in half of the words
that either has wrong, and are more alike than those of two models would be.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.asr import whisper
from agents.embedded.voice import speak
from agents.embedded.weights import model_path
from agents.media.decoding.chunks import Chunk

#: What is said: by language, lines of (speaker, text to speak, the same as it is written if that differs).
CALLS = Path(__file__).parents[1] / "tests" / "data" / "languages" / "calls.json"
#: eSpeak's voice, where it is not named as the language is.
VOICES = {"zh": "cmn"}
RATE, SLOWER = 16_000, 1.04

Samples = NDArray[np.float32]
Words = list[list[Any]]


def recording(language: str, lines: list[list[str]]) -> Samples:
    """The call, spoken by two voices, 16 kHz."""
    voice = VOICES.get(language, language)
    samples, rate = speak(
        [(voice if who == "a" else f"{voice}+f3", text[0]) for who, *text in lines], words_per_minute=140
    )
    at = np.arange(0, len(samples), rate / RATE)
    return (np.interp(at, np.arange(len(samples)), samples) / 32768).astype(np.float32)


def telephone(samples: Samples) -> Samples:
    """300 to 3400 Hz, with the steps of mu-law."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    band = np.fft.irfft(spectrum, len(samples))
    compressed = np.sign(band) * np.log1p(255 * np.abs(np.clip(band, -1, 1))) / np.log(256)
    steps = np.round(compressed * 127) / 127
    return (np.sign(steps) * np.expm1(np.abs(steps) * np.log(256)) / 255).astype(np.float32)


def noisy(samples: Samples) -> Samples:
    """White noise at 15 dB below the speech."""
    noise = np.random.default_rng(7).normal(0, np.sqrt(np.mean(samples**2)) / 10**0.75, len(samples))
    return (samples + noise).astype(np.float32)


CONDITIONS = {"clean": lambda samples: samples, "telephone": telephone, "noise": noisy}


def as_concord(model: Any, samples: Samples, language: str) -> Words:
    """The words of the recognizer `whisper-base`, with the language asked for."""
    words: Words = []
    for window in whisper.windows(Chunk(0, samples)):
        segments, _ = model.transcribe(window.samples, language=language, **whisper.OPTIONS)
        words += whisper.words_of(segments, window, spaced=language not in whisper.UNSPACED)
    return words


def greedily(model: Any, samples: Samples, language: str) -> Words:
    """The words of the other recognizer; see above."""
    at = np.arange(0, len(samples) - 1, 1 / SLOWER)
    slow = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
    options = {**whisper.OPTIONS, "beam_size": 1}
    segments, _ = model.transcribe(slow, language=language, **options)
    whole = whisper.Window(slow, ((0, 0),), len(slow) * 1000 // RATE)
    words = whisper.words_of(segments, whole, spaced=language not in whisper.UNSPACED)
    return [[text, round(start / SLOWER), round(end / SLOWER), p] for text, start, end, p in words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("languages", nargs="*")
    arguments = parser.parse_args()
    from faster_whisper import WhisperModel

    model = WhisperModel(str(model_path("base", None)), device="cpu", compute_type="int8", cpu_threads=1)
    for language, lines in json.loads(CALLS.read_text()).items():
        if arguments.languages and language not in arguments.languages:
            continue
        samples = recording(language, lines)
        for condition, change in CONDITIONS.items():
            changed = change(samples)
            heard = {
                "whisper-base": as_concord(model, changed, language),
                "whisper-base-greedy": greedily(model, changed, language),
            }
            reference = " ".join(line[-1] for line in lines)
            data = {
                "language": language,
                "recording": f"synthetic, {condition}",
                "reference": reference,
                "hypotheses": heard,
            }
            path = arguments.folder / f"{language}-{condition}.json"
            path.write_text(json.dumps(data, ensure_ascii=False) + "\n")
            print(path, {name: len(words) for name, words in heard.items()}, flush=True)


if __name__ == "__main__":
    main()
