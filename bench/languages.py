"""Calls in seven languages as two multilingual recognizers hear them: makes the recordings, and the hypotheses that
`tests/data/languages` keeps. `python -m bench.languages FOLDER` writes them.

No second multilingual model comes in a package. The other recognizer is therefore Whisper base, too, but decoded
greedily, in Whisper's own windows of 30 seconds, from sound that is 4 % slower: its errors differ in half of the words
that either has wrong, and are more alike than those of two models would be.
"""

from __future__ import annotations

import argparse
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.asr import whisper
from agents.asr.speech_windows import Window, windows
from agents.embedded.voice import speak
from agents.embedded.weights import model_path
from agents.media.decoding.chunks import Chunk

#: What is said: by language, lines of (speaker, text to speak, the same as it is written if that differs).
CALLS = Path(__file__).parents[1] / "tests" / "data" / "languages" / "calls.json"
#: eSpeak's voice, where it is not named as the language is.
VOICES = {"zh": "cmn"}
RATE, SLOWER = 16_000, 1.04

#: By name, the seed and the share of words that are wrong; and how often a word is written.
DRAWN = {"a": (1, 0.08), "b": (2, 0.14)}
REPEATS = {"right": 1, "other": 1, "left out": 0, "twice": 2}

Samples = NDArray[np.float32]
Words = list[list[Any]]


def written(lines: list[list[str]]) -> str:
    """What is said, as it is written: Arabic without the signs for short vowels, which its voice needs."""
    text = " ".join(line[-1] for line in lines)
    return "".join(c for c in text if not ("\u0600" <= c <= "\u06ff" and unicodedata.category(c) == "Mn"))


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
    for window in windows(Chunk(0, samples)):
        segments, _ = model.transcribe(window.samples, language=language, **whisper.OPTIONS)
        words += whisper.words_of(segments, window, spaced=language not in whisper.UNSPACED)
    return words


def greedily(model: Any, samples: Samples, language: str) -> Words:
    """The words of the other recognizer; see above."""
    at = np.arange(0, len(samples) - 1, 1 / SLOWER)
    slow = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
    options = {**whisper.OPTIONS, "beam_size": 1}
    segments, _ = model.transcribe(slow, language=language, **options)
    whole = Window(slow, ((0, 0),), len(slow) * 1000 // RATE)
    words = whisper.words_of(segments, whole, spaced=language not in whisper.UNSPACED)
    return [[text, round(start / SLOWER), round(end / SLOWER), p] for text, start, end, p in words]


def with_errors(reference: str, language: str, seed: int, rate: float) -> Words:
    """A hypothesis with errors drawn at random, for languages that Whisper base does not hear from eSpeak's voices: a
    word (in Chinese and Japanese, a character) is replaced by another of the call, left out, or said twice.
    """
    random = np.random.default_rng(seed)
    units = [c for c in reference if not c.isspace()] if language in whisper.UNSPACED else reference.split()
    words: Words = []
    for n, unit in enumerate(units):
        start = 350 * n + int(random.integers(60))
        wrong = random.random() < rate
        kind = random.choice(["other", "left out", "twice"], p=[0.7, 0.2, 0.1]) if wrong else "right"
        text = str(random.choice(units)) if kind == "other" else unit
        confidence = round(float(random.beta(3, 3) if kind == "other" else random.beta(8, 2)), 4)
        words += [[text, start + 170 * again, start + 170 * again + 160, confidence] for again in range(REPEATS[kind])]
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("languages", nargs="*", help="of these only (default: all)")
    parser.add_argument("--drawn", action="store_true", help="only the hypotheses with errors drawn at random")
    arguments = parser.parse_args()
    calls = json.loads(CALLS.read_text())
    for language in arguments.languages or calls:
        reference = written(calls[language])
        drawn = {name: with_errors(reference, language, seed, rate) for name, (seed, rate) in DRAWN.items()}
        _write(arguments.folder, language, "errors drawn at random", "drawn", reference, drawn)
        if not arguments.drawn:
            _recognize(arguments.folder, language, calls[language], reference)


def _recognize(folder: Path, language: str, lines: list[list[str]], reference: str) -> None:
    from faster_whisper import WhisperModel

    model = WhisperModel(str(model_path("base", None)), device="cpu", compute_type="int8", cpu_threads=1)
    samples = recording(language, lines)
    for condition, change in CONDITIONS.items():
        changed = change(samples)
        heard = {
            "whisper-base": as_concord(model, changed, language),
            "whisper-base-greedy": greedily(model, changed, language),
        }
        _write(folder, language, f"synthetic voices, {condition}", condition, reference, heard)


def _write(folder: Path, language: str, made: str, name: str, reference: str, heard: dict[str, Words]) -> None:
    data = {"language": language, "recording": made, "reference": reference, "hypotheses": heard}
    path = folder / f"{language}-{name}.json"
    path.write_text(json.dumps(data, ensure_ascii=False) + "\n")
    print(path, {name: len(words) for name, words in heard.items()}, flush=True)


if __name__ == "__main__":
    main()
