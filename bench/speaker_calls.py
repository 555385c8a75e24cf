"""Calls of two speakers for `bench.speakers`: turns of people and synthetic voices, which interrupt each other."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.commands.demo_recordings import PEOPLE, RATE
from agents.embedded.voice import speak
from agents.media.decoding.decoder import decode

#: What synthetic voices say: numbers, names, questions, and answers of a word.
LINES = """
Thank you for calling Harbour Insurance, you are speaking with Daniel. May I have your policy number?
The policy number is eight zero three, five five one, two seven. My name is Rebecca Lawson.
I can see the policy here, for a house in Cambridge. What has happened?
A pipe burst in the kitchen on Sunday evening, around half past nine, and the water went through the ceiling.
I am very sorry to hear that. Was anybody hurt, and is the electricity still working?
Nobody was hurt. The lights in the dining room are off, and the carpet is ruined, I am afraid.
I will send an assessor this week, either Wednesday morning or Thursday after three.
Please keep the invoice and take photographs of the damage before anything is thrown away.
Thursday would be better. Will the excess be the same as last year, a hundred pounds?
Yes, it has not changed. You will get an email within the hour.
The parcel left our warehouse on Friday, and it will be with you tomorrow before noon.
Could you tell me how long the repair will take, and who pays for the hotel until then?
That depends on the assessor, but most kitchens are dry again after two or three weeks.
I have written to you twice already, and nobody has answered my letters.
Let me look into that. I can see one letter from the second of March, but no answer to it.
No, that is everything. Thank you very much for your help, and goodbye.
""".strip().splitlines()

#: Seconds of the shortest turn.
TURN_S = 3.5

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Call:
    """A call: each speaker's sound, and who speaks when."""

    name: str
    #: (2, samples).
    tracks: Samples
    #: (start_ms, end_ms, speaker), in order.
    turns: tuple[tuple[int, int, int], ...]

    @property
    def mono(self) -> Samples:
        """Both speakers on one channel."""
        mixed: Samples = self.tracks.sum(axis=0)
        return mixed / max(1.0, float(np.abs(mixed).max()))

    def speaking(self, at_ms: float) -> set[int]:
        """Who speaks at that time."""
        return {speaker for start, end, speaker in self.turns if start <= at_ms < end}


def speakers() -> dict[str, list[Samples]]:
    """Clips of each speaker, by name: people, as far as there are recordings of them, and synthetic voices."""
    clips = {path.stem: _phrases(_read(path)) for path in sorted(PEOPLE.glob("*.flac"))}
    spec = importlib.util.find_spec("moonshine_cpp")
    if spec is not None and spec.origin is not None:
        clips["beckett"] = _phrases(_read(Path(spec.origin).parent / "test-data" / "beckett.wav"))
    for name, voice in {"man": "en-us", "woman": "en-us+f3", "briton": "en-gb-x-rp", "lady": "en-us+f2"}.items():
        clips[name] = [_spoken(voice, line) for line in LINES]
    return clips


def call(name: str, pair: Sequence[list[Samples]], seconds: float, overlap_s: float, seed: int) -> Call:
    """A call in which each turn, of `TURN_S` at least, begins `overlap_s` before the one before ends."""
    random = np.random.default_rng(seed)
    queues = [_order(clips, random) for clips in pair]
    turns: list[tuple[int, int, int]] = []
    placed: list[tuple[int, int, Samples]] = []
    at, speaker = RATE // 2, 0
    while at < seconds * RATE:
        clip = next(queues[speaker])
        while len(clip) < TURN_S * RATE or random.random() < 0.2:
            clip = np.concatenate([clip, next(queues[speaker])])
        placed.append((at, speaker, clip))
        turns.append((at * 1000 // RATE, (at + len(clip)) * 1000 // RATE, speaker))
        at += len(clip) - round(overlap_s * RATE)
        speaker = 1 - speaker
    tracks = np.zeros((2, max(start + len(clip) for start, _, clip in placed) + RATE // 2), dtype=np.float32)
    for start, speaker, clip in placed:
        tracks[speaker, start : start + len(clip)] += clip
    return Call(name, tracks, tuple(turns))


def _order(clips, random):
    while True:
        yield from (clips[n] for n in random.permutation(len(clips)))


def _read(path: Path) -> Samples:
    return np.concatenate(list(decode(path, RATE)))


def _spoken(voice: str, line: str) -> Samples:
    samples, rate = speak([(voice, line)], pause_ms=0)
    wanted = np.arange(0, len(samples) - 1, rate / RATE)
    return _level(_trimmed(np.interp(wanted, np.arange(len(samples)), samples).astype(np.float32)))


def _level(samples: Samples) -> Samples:
    return samples * np.float32(0.08 / np.sqrt(np.mean(np.square(samples))))


def _trimmed(samples: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def _phrases(samples: Samples) -> list[Samples]:
    """A reading in phrases of two seconds and more, cut in its pauses."""
    step = RATE // 50
    power = np.square(samples[: len(samples) // step * step].reshape(-1, step)).mean(axis=1)
    quiet = np.convolve(power < 0.01 * power.max(), np.ones(9), "same") >= 9
    phrases, start = [], 0
    for n in np.flatnonzero(np.diff(quiet.astype(int)) == 1):
        if n * step - start >= 2 * RATE and len(samples) - n * step >= 2 * RATE:
            phrases.append(samples[start : n * step])
            start = int(n) * step
    return [_level(_trimmed(phrase)) for phrase in [*phrases, samples[start:]]]
