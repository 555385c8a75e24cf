"""Words that nobody said: half an hour of silence, noise, tones and music through the local recognizers.

`python -m bench.nothing_said RECOGNIZER ...` prints the words for each kind of sound. None is right; of a kind "with
speech", in which a sentence is spoken every half minute, those that begin over a second from it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.asr.protocols import LocalRecognizer, Request
from agents.embedded.voice import speak
from agents.fleet.environment import from_env
from agents.fleet.recognizers import open_recognizer

RATE = 16_000
#: Seconds of each kind of sound.
SECONDS = 100

Samples = NDArray[np.float64]
_RANDOM = np.random.default_rng(12)


def _times(seconds: float) -> Samples:
    return np.arange(int(seconds * RATE)) / RATE


def _noise(seconds: float, color: float) -> Samples:
    """Noise whose power falls with frequency to this power: 0 white, 1 pink, 2 brown. Root mean square 1."""
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(_RANDOM.normal(size=count)) / np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20) ** (color / 2)
    samples = np.fft.irfft(spectrum, count)
    return samples / np.sqrt(np.mean(samples**2))


def _tones(at: Samples, *frequencies: float) -> Samples:
    return np.mean([np.sin(2 * np.pi * frequency * at) for frequency in frequencies], axis=0)


def _on(at: Samples, *seconds: float) -> Samples:
    """1 and 0 in turn: on for the first of these seconds, off for the second, and so on, again and again."""
    place = at % sum(seconds)
    edges = np.cumsum(seconds)
    return (np.searchsorted(edges, place, side="right") % 2 == 0).astype(float)


def _note(frequency: float, seconds: float, harmonics: int) -> Samples:
    at = _times(seconds)
    tone = sum(np.sin(2 * np.pi * frequency * n * at) / n**1.5 for n in range(1, harmonics + 1))
    return np.asarray(tone) * np.exp(-2.5 * at / seconds) * np.minimum(1, at * 60)


def _music(seconds: float, *, drums: bool) -> Samples:
    """A melody over chords of a scale, as on hold; with drums, louder and faster."""
    scale = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
    beat = 0.3 if drums else 0.5
    samples = np.zeros(int((seconds + 4) * RATE))
    for n in range(int(seconds / beat)):
        start = int(n * beat * RATE)
        notes = [(2 * scale[_RANDOM.integers(8)], beat * 1.5, 8)]
        if n % 4 == 0:
            root = _RANDOM.integers(4)
            notes += [(scale[root + step], beat * 4, 5) for step in (0, 2, 4)]
        for note in notes:
            sound = _note(*note)
            samples[start : start + len(sound)] += 0.15 * sound
        if drums:
            hit = _RANDOM.normal(size=2400) * np.exp(-np.arange(2400) / 400)
            samples[start : start + 2400] += 0.15 * hit
    return samples[: int(seconds * RATE)]


def _dtmf(at: Samples) -> Samples:
    keys = [(697, 1209), (770, 1336), (852, 1477), (941, 1336), (697, 1477), (852, 1209)]
    key = (at / 0.4).astype(int) % len(keys)
    return _on(at, 0.2, 0.2) * np.sum([_tones(at, *pair) * (key == n) for n, pair in enumerate(keys)], axis=0)


def _clicks(at: Samples) -> Samples:
    """A keyboard."""
    samples = np.zeros(len(at))
    for start in (_RANDOM.uniform(0, at[-1] - 0.1, int(at[-1] * 5)) * RATE).astype(int):
        click = _RANDOM.normal(size=320) * np.exp(-np.arange(320) / 60)
        samples[start : start + 320] += click * _RANDOM.uniform(0.05, 0.4)
    return samples


def _swelling(at: Samples, hertz: float) -> Samples:
    return np.clip(np.sin(2 * np.pi * hertz * at), 0, 1)


KINDS: dict[str, Callable[[Samples], Samples]] = {
    "silence": np.zeros_like,
    "dither": lambda at: np.round(_RANDOM.normal(0, 1, len(at))) / 32768,
    "hiss": lambda at: 0.02 * _noise(at[-1] + 1 / RATE, 0)[: len(at)],
    "loud hiss": lambda at: 0.25 * _noise(at[-1] + 1 / RATE, 0)[: len(at)],
    "pink noise": lambda at: 0.08 * _noise(at[-1] + 1 / RATE, 1)[: len(at)],
    "traffic": lambda at: 0.1 * _noise(at[-1] + 1 / RATE, 2)[: len(at)] * (1 + 0.8 * np.sin(2 * np.pi * at / 9)),
    "breath": lambda at: 0.08 * _noise(at[-1] + 1 / RATE, 1)[: len(at)] * _swelling(at, 0.3),
    "flutter": lambda at: 0.15 * _noise(at[-1] + 1 / RATE, 1)[: len(at)] * _swelling(at, 4),
    "hum": lambda at: 0.1 * _tones(at, 50, 100, 150, 250),
    "ringing, US": lambda at: 0.3 * _tones(at, 440, 480) * _on(at, 2, 4),
    "ringing, Europe": lambda at: 0.3 * _tones(at, 425) * _on(at, 1, 4),
    "ringing, UK": lambda at: 0.3 * _tones(at, 400, 450) * _on(at, 0.4, 0.2, 0.4, 2),
    "busy": lambda at: 0.3 * _tones(at, 425) * _on(at, 0.48, 0.48),
    "beep on hold": lambda at: 0.3 * _tones(at, 1400) * _on(at, 0.4, 14.6),
    "keys": lambda at: 0.3 * _dtmf(at),
    "fax": lambda at: 0.3 * _tones(at, 2100) * _on(at, 3, 1) + 0.1 * _tones(at, 1100) * _on(at, 0.5, 3),
    "music on hold": lambda at: _music(at[-1] + 1 / RATE, drums=False)[: len(at)],
    "music with drums": lambda at: _music(at[-1] + 1 / RATE, drums=True)[: len(at)],
    "keyboard": _clicks,
}


def write(path: Path, samples: Samples) -> Path:
    """The samples as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


#: The sentence of recordings with speech, and seconds from one to the next.
SENTENCE, EVERY_S = "Thank you for waiting, I can see your order here on the screen.", 30.0


def recording(kind: str, seconds: float, *, speech: bool) -> tuple[Samples, list[tuple[float, float]]]:
    """So many seconds of a kind of sound, if asked for with speech in it, whose intervals are returned, too."""
    samples = KINDS[kind](_times(seconds))
    intervals = []
    if speech:
        spoken, rate = speak([("en-us", SENTENCE)], pause_ms=0)
        sentence = np.interp(np.arange(0, len(spoken), rate / RATE), np.arange(len(spoken)), spoken) / 32768
        for start in np.arange(EVERY_S / 2, seconds - EVERY_S / 2, EVERY_S):
            first, length = int(start * RATE), len(sentence)
            samples[first : first + length] = 0.2 * samples[first : first + length] + sentence
            intervals.append((start, start + length / RATE))
    return samples, intervals


async def invented(
    recognizer: LocalRecognizer, kind: str, seconds: float = SECONDS, *, speech: bool = False
) -> list[str]:
    """The words that nobody said, in so many seconds of a kind of sound."""
    samples, intervals = recording(kind, seconds, speech=speech)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.wav", samples)
        request = Request("t", "j", 1, "m", duration_ms=int(seconds * 1000))
        hypothesis = await recognizer.transcribe(path, request, lambda _: None)

    def is_spoken(at_ms: int) -> bool:
        return any(start - 1 <= at_ms / 1000 <= end + 1 for start, end in intervals)

    return [word.text for word in hypothesis.words if not is_spoken(word.start_ms or 0)]


async def _measure(names: list[str], seconds: float) -> int:
    total = 0
    for name in names:
        recognizer = open_recognizer(name, from_env({"CONCORD_RECOGNIZERS": name}))
        if not isinstance(recognizer, LocalRecognizer):
            raise SystemExit(f"{name} does not run here")
        for kind, speech in itertools.product(KINDS, (False, True)):
            began = time.monotonic()
            words = await invented(recognizer, kind, seconds, speech=speech)
            total += len(words)
            title = f"{kind}{' with speech' * speech}"
            took = f"{time.monotonic() - began:6.1f} s"
            print(f"{name:<20} {title:<30} {len(words):4} words {took}  {' '.join(words)[:80]}", flush=True)
        await recognizer.close()
    minutes = 2 * len(KINDS) * seconds / 60
    print(f"{total} words that nobody said, in {minutes:.0f} minutes for each of {len(names)} recognizers")
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recognizers", nargs="*", default=["whisper-base", "whisper-tiny.en"])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each kind of sound")
    arguments = parser.parse_args()
    return int(asyncio.run(_measure(arguments.recognizers, arguments.seconds)) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
