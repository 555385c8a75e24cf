"""Who said which word: calls of two speakers with overlaps, mono and stereo, through the local recognizers.

`python -m bench.speakers` prints, for each call, the share of words with a wrong speaker, and the time and memory that
telling voices apart takes. A word's right speaker is who speaks while it is said; where both do, the one who says this
word there when heard alone, if only one does. Labels count as the speakers with whom they agree best.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from agents.asr.protocols import Request
from agents.embedded.weights import voices_path
from agents.fleet.environment import from_env
from agents.fleet.recognizers import open_recognizer
from agents.stages.speaking import speech
from agents.text.reconcile import reconcile
from agents.text.speakers.attribution import attributed
from agents.text.speakers.channels import reconcile_channels
from agents.voices.listening import Listener
from bench.speaker_calls import RATE, Call, Samples, call, speakers
from schemas.words import Hypothesis, Reconciliation, Word, adapter

RECOGNIZERS = ("whisper-base", "moonshine-base.en")
#: Pairs of speakers: people, a person and a synthetic voice, two synthetic voices.
PAIRS = (
    ("sense-and-sensibility", "two-cities"),
    ("sense-and-sensibility", "beckett"),
    ("two-cities", "beckett"),
    ("sense-and-sensibility", "man"),
    ("two-cities", "woman"),
    ("man", "woman"),
    ("briton", "lady"),
    ("lady", "man"),
)
#: Milliseconds within which a word that is heard in the mixed sound is the same word of one of the speakers alone.
NEAR_MS = 800


async def heard(path: Path, kept: Path | None, *, diarize: bool) -> list[Hypothesis]:
    """What the recognizers hear in a recording; from a file if it was heard before."""
    found = []
    for name in RECOGNIZERS:
        file = kept / f"{path.stem}.{name}.json" if kept else None
        if file is not None and file.exists():
            found.append(adapter(Hypothesis).validate_json(file.read_bytes()))
            continue
        recognizer = open_recognizer(name, from_env({}))
        request = Request("bench", path.stem, 1, "", language="en", diarize=diarize)
        found.append(await recognizer.transcribe(path, request, lambda _: None))
        await recognizer.close()
        if file is not None:
            file.write_bytes(adapter(Hypothesis).dump_json(found[-1]))
    return found


def write(path: Path, channels: Samples) -> Path:
    """A WAV file of (channels, samples)."""
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(channels, -1, 1).T * 32767).astype("<i2").tobytes())
    return path


@dataclass(frozen=True)
class Errors:
    """Words whose speaker is wrong, and those that were counted."""

    wrong: int
    counted: int
    #: Labels that the transcript has.
    speakers: int

    def __str__(self) -> str:
        share = self.wrong / max(self.counted, 1)
        return f"{share:6.2%} ({self.wrong} of {self.counted} words, {self.speakers} speakers)"


def errors(call: Call, decided: Reconciliation, alone: Reconciliation | None = None) -> Errors:
    """The words of a transcript with a wrong speaker; `alone` is what was heard of each speaker alone."""
    right = [_right(call, word, alone) for word in decided.words]
    counted = [(word.speaker, speakers) for word, speakers in zip(decided.words, right, strict=True) if speakers]
    labels = sorted({label for label, _ in counted if label is not None})
    orders = itertools.permutations(range(max(2, len(labels))), len(labels))
    numbers = [dict(zip(labels, order, strict=False)) for order in orders]
    wrong = min(sum(of.get(label) not in speakers for label, speakers in counted) for of in numbers)
    return Errors(wrong, len(counted), len(labels))


def _right(call: Call, word: Word, alone: Reconciliation | None) -> set[int]:
    start, end = word.start_ms or 0, word.end_ms or 0
    speaking = {speaker for begin, stop, speaker in call.turns if begin < end and start < stop}
    if len(speaking) < 2 or alone is None:
        return speaking
    plain = word.text.casefold().strip(".,?!")
    near = [one for one in alone.words if one.text.casefold().strip(".,?!") == plain]
    near = [one for one in near if abs((one.start_ms or 0) - start) <= NEAR_MS]
    saying = {speaker for one in near for speaker in [_of_alone(call, one)] if speaker is not None}
    return saying if len(saying) == 1 else speaking


def _of_alone(call: Call, word: Word) -> int | None:
    """The speaker of a word that was heard alone, by its label: A speaks first."""
    first = min(call.turns)[2]
    return {"A": first, "B": 1 - first}.get(word.speaker or "")


def peak_mb(pid: int | None) -> float:
    """The largest resident size that a process had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cpu_s(pid: int | None) -> float:
    """Seconds of processor time that a process has used; 0 before it is started."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def calls(seconds: float, overlap_s: float, pairs: Sequence[tuple[str, str]]) -> Iterator[Call]:
    """A call of each pair."""
    clips = speakers()
    for number, pair in enumerate(pairs):
        if all(name in clips for name in pair):
            yield call("+".join(pair), [clips[name] for name in pair], seconds, overlap_s, number)


async def measure(call: Call, folder: Path, kept: Path | None, listener: Listener, asked: int | None) -> list[Errors]:
    """The errors of a call in stereo and in mono, printed."""
    mono = write(folder / f"{call.name}-mono.wav", call.mono[None])
    stereo = write(folder / f"{call.name}-stereo.wav", call.tracks)
    apart = reconcile_channels(await heard(stereo, kept, diarize=True))
    if apart is None:
        raise SystemExit(f"{call.name}: the channels were not heard apart")
    hypotheses = await heard(mono, kept, diarize=False)
    decided = reconcile(hypotheses)
    begun, used = time.monotonic(), cpu_s(listener.pid)
    voices = await listener.listen(mono, speech(decided), asked, lambda _: None)
    result = attributed(decided, hypotheses, voices)
    took, used = time.monotonic() - begun, cpu_s(listener.pid) - used
    found = [errors(call, apart), errors(call, result, apart)]
    length = call.tracks.shape[1] / RATE
    print(f"{call.name:32} stereo {found[0]}  mono {found[1]}")
    resources = f"{took:.1f} s, {used:.1f} s of a processor, {peak_mb(listener.pid):.0f} MB"
    print(f"{'':32} {length:.0f} s of sound: {resources}", flush=True)
    return found


async def main() -> None:
    """Measure all pairs."""
    parser = argparse.ArgumentParser(prog="bench.speakers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each call")
    parser.add_argument("--overlap", type=float, default=1.0, help="seconds of each overlap")
    parser.add_argument("--asked", type=int, help="the number of speakers that is asked for; default: guessed")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="pairs of speakers, the first of the list")
    parser.add_argument("--kept", type=Path, help="folder in which what was heard is kept")
    arguments = parser.parse_args()
    if arguments.kept:
        arguments.kept.mkdir(parents=True, exist_ok=True)
    listener = Listener(partial(voices_path, from_env({}).cache))
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            await measure(each, Path(folder), arguments.kept, listener, arguments.asked)
            for each in calls(arguments.seconds, arguments.overlap, PAIRS[: arguments.pairs])
        ]
    await listener.close()
    for name, column in zip(("stereo", "mono"), zip(*rows, strict=True), strict=True):
        counted = sum(one.counted for one in column)
        print(f"{name}: {sum(one.wrong for one in column) / counted:.2%} of {counted} words have a wrong speaker")


if __name__ == "__main__":
    asyncio.run(main())
