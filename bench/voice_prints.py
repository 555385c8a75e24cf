"""Whose voice is it: how often a voice print recognises its speaker in another recording, and takes others for them.

`python -m bench.voice_prints` makes calls of two speakers (`bench.speaker_calls`), each pair of whom has one with
either half of what there is of them. Every call is heard as it is, through a telephone, and in noise 5 dB below the
speech. Prints of one speaker are compared that are of different halves, so of other words; those of different speakers
in any two calls. Printed are the cosines, and by threshold the share of false rejections and of false acceptances.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from agents.commands.demo_recordings import noise, telephone
from agents.embedded.weights import voices_path
from agents.fleet.environment import from_env
from agents.text.speakers.prints import SAME_PERSON, VoicePrint
from agents.voices.listening import Listener
from bench.speaker_calls import RATE, TURN_S, Samples, call, speakers
from bench.speakers import write

#: People; the others are synthetic voices.
PEOPLE = ("beckett", "sense-and-sensibility", "two-cities")

#: How a call is heard.
KINDS = ("clean", "telephone", "noise")


@dataclass(frozen=True)
class Heard:
    """What a speaker sounds like in one recording."""

    speaker: str
    call: str
    #: One of `KINDS`.
    kind: str
    #: The part of what the speaker says: other parts have other words.
    part: int
    print_: VoicePrint

    def like(self, other: Heard) -> float:
        """The cosine with another one."""
        one, two = (np.frombuffer(each.print_.vector, dtype="<f4") for each in (self, other))
        return float(one @ two)


def divided(clips: list[Samples], parts: int) -> list[list[Samples]]:
    """A speaker's clips in so many parts of equal length, in order."""
    ends = np.cumsum([len(clip) for clip in clips])
    number = np.minimum((ends - 1) * parts // ends[-1], parts - 1).tolist()
    return [[clip for clip, of in zip(clips, number, strict=True) if of == part] for part in range(parts)]


async def listen(listener: Listener, folder: Path, options: argparse.Namespace) -> list[Heard]:
    """The prints of all speakers of all calls."""
    parts = range(options.parts)
    found = {name: sound for name, sound in speakers().items() if name in PEOPLE or not options.people}
    clips = {name: divided(sound, options.parts) for name, sound in found.items()}
    heard, begun, length = [], time.monotonic(), 0.0
    pairs = itertools.product(itertools.combinations(sorted(clips), 2), parts)
    for number, ((one, other), part) in enumerate(pairs):
        pair = [clips[one][part], clips[other][part]]
        if any(sum(map(len, sound)) < 2 * TURN_S * RATE for sound in pair):
            continue
        made = call(f"{one}+{other}-{part}", pair, options.seconds, options.overlap, number)
        turns = {
            name: [(start, end) for start, end, who in made.turns if who == n] for n, name in enumerate((one, other))
        }
        for kind, sound in zip(KINDS, (made.mono, telephone(made.mono), noise(made.mono)), strict=True):
            path = write(folder / f"{made.name}-{kind}.wav", sound.astype(np.float32)[None])
            prints = await listener.prints(path, turns, lambda _: None)
            heard += [Heard(name, made.name, kind, part, print_) for name, print_ in prints.items()]
            length += len(sound) / RATE
    print(f"{len(heard)} prints of {length:.0f} s of calls took {time.monotonic() - begun:.0f} s")
    return heard


def report(title: str, heard: Iterable[Heard], *, across: bool = False) -> None:
    """The cosines, and both rates by threshold; `across`: of recordings that are heard in different ways."""
    pairs = [
        (one, two)
        for one, two in itertools.combinations(heard, 2)
        if one.call != two.call and (one.kind != two.kind) is across
    ]
    same = np.array([one.like(two) for one, two in pairs if one.speaker == two.speaker and one.part != two.part])
    others = np.array([one.like(two) for one, two in pairs if one.speaker != two.speaker])
    print(f"\n{title}: {len(same)} pairs of one speaker, {len(others)} of two", flush=True)
    if not len(same) or not len(others):
        return
    for name, values in (("one speaker", same), ("two speakers", others)):
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        span = f"{values.min():.2f} to {values.max():.2f}"
        print(f"  {name:12}  {span}; 5 % {low:.2f}, median {middle:.2f}, 95 % {high:.2f}")
    for threshold in sorted({*np.arange(0.76, 0.97, 0.02).round(2).tolist(), SAME_PERSON}):
        mark = "  <- the threshold" if threshold == SAME_PERSON else ""
        rejected, accepted = np.mean(same < threshold), np.mean(others >= threshold)
        print(f"  {threshold:.2f}  rejected {rejected:6.1%}  falsely accepted {accepted:6.1%}{mark}")


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.voice_prints", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each call")
    parser.add_argument("--overlap", type=float, default=0.5, help="seconds of each overlap")
    parser.add_argument("--parts", type=int, default=2, help="parts of what each speaker says")
    parser.add_argument("--people", action="store_true", help="no synthetic voices")
    arguments = parser.parse_args()
    listener = Listener(partial(voices_path, from_env({}).cache))
    with tempfile.TemporaryDirectory() as folder:
        heard = await listen(listener, Path(folder), arguments)
    await listener.close()
    people = [one for one in heard if one.speaker in PEOPLE]
    synthetic = [one for one in heard if one.speaker not in PEOPLE]
    for who, prints in (("people", people), ("synthetic voices", synthetic), ("all", heard)):
        for kind in KINDS:
            report(f"{who}, {kind}", [one for one in prints if one.kind == kind])
        for kind in KINDS[1:]:
            mixed = [one for one in prints if one.kind in (KINDS[0], kind)]
            report(f"{who}, {KINDS[0]} with {kind}", mixed, across=True)


if __name__ == "__main__":
    asyncio.run(main())
