"""The recognizers that need no key, on people and synthetic voices; each as it is, through a telephone, and in noise:
`python -m bench.default_pair`.

`--record` runs the recognizers (some minutes) and keeps what they heard in tests/data/default_pair; otherwise what was
kept is reconciled and scored, in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agents.asr.protocols import Request
from agents.commands.demo_recordings import PEOPLE, RATE, noise, reference_text, telephone, write
from agents.embedded.sample_call import sample_call
from agents.embedded.voice import speak
from agents.fleet.recognizers import open_recognizer
from agents.fleet.settings import Settings
from agents.media.decoding.decoder import decode
from agents.text.reconcile import reconcile
from agents.text.score import Score, pooled, score
from schemas.words import Hypothesis, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What was heard, one file a clip.
KEPT = Path(__file__).parents[1] / "tests" / "data" / "default_pair"
RECOGNIZERS = ("whisper-base", "moonshine-base.en", "whisper-tiny.en")
#: The sets that are reconciled.
SETS = (RECOGNIZERS[:2], (RECOGNIZERS[0], RECOGNIZERS[2]), RECOGNIZERS)

#: A call with numbers, names and times, a line a turn, by two voices.
VOICES = ("en-gb-x-rp", "en-us+f2")
CALL = """
Thank you for calling Harbour Insurance, you are speaking with Daniel. May I have your policy number?
Hello Daniel. The policy number is eight zero three, five five one, two seven. My name is Rebecca Lawson.
Thank you, Mrs Lawson. I can see the policy here, for a house in Cambridge. What has happened?
A pipe burst in the kitchen on Sunday evening, around half past nine, and the water went through the ceiling \
into the dining room. The plumber came on Monday and charged two hundred and forty pounds.
I am very sorry to hear that. Was anybody hurt, and is the electricity still working?
Nobody was hurt. The lights in the dining room are off, and the carpet is ruined, I am afraid.
All right. I will send an assessor this week, either Wednesday morning or Thursday after three. Please keep the \
invoice and take photographs of the damage before anything is thrown away.
Thursday would be better. Will the excess be the same as last year, a hundred pounds?
Yes, it has not changed. You will get an email within the hour. Is there anything else I can do for you?
No, that is everything. Thank you very much, goodbye.
""".strip().splitlines()


CONDITIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clean": lambda samples: samples,
    "telephone": telephone,
    "noise": noise,
}


@dataclass(frozen=True)
class Clip:
    """A recording, what is said in it, and what each recognizer heard."""

    name: str
    reference: str
    hypotheses: dict[str, Hypothesis]


def kept(folder: Path = KEPT) -> list[Clip]:
    """The clips that were kept, by name."""
    return [_load(path) for path in sorted(folder.glob("*.json"))]


def _load(path: Path) -> Clip:
    document = json.loads(path.read_text())
    hypotheses = {
        name: Hypothesis(
            name,
            tuple(Word(*word) for word in words),
            language="en",
            duration_ms=document["duration_ms"],
            tells_language=name == "whisper-base",
        )
        for name, words in document["words"].items()
    }
    return Clip(path.stem, document["reference"], hypotheses)


def _recordings(folder: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, reference and samples of each recording."""
    for path in (*sorted(PEOPLE.glob("*.flac")), sample_call(folder)):
        reference = reference_text(path)
        assert reference, path
        yield path.stem, reference, np.concatenate(list(decode(path, RATE)))
    samples, rate = speak(list(zip(itertools.cycle(VOICES), CALL, strict=False)))
    at = np.arange(0, len(samples), rate / RATE)
    yield "insurance", " ".join(CALL), np.interp(at, np.arange(len(samples)), samples) / 32768


async def _record(folder: Path) -> None:
    """Run each recognizer on each clip, one after the other; print its processor time and memory."""
    clips = {}
    for name, reference, samples in _recordings(folder):
        for condition, line in CONDITIONS.items():
            path = folder / f"{name}-{condition}.wav"
            write(path, line(samples))
            document = {"reference": reference, "duration_ms": len(samples) * 1000 // RATE, "words": {}}
            clips[path] = document
    for name in RECOGNIZERS:
        recognizer = open_recognizer(name, Settings())
        for path, document in clips.items():
            heard = await recognizer.transcribe(
                path, Request("bench", path.stem, 1, "m", language="en"), lambda _: None
            )
            document["words"][name] = [[w.text, w.start_ms, w.end_ms, w.confidence] for w in heard.words]
        seconds = sum(document["duration_ms"] for document in clips.values()) / 1000
        print(
            f"{name}: {_cpu_s(recognizer.pid):.1f} s of processor time for {seconds:.0f} s of sound, "
            f"{_memory_mb(recognizer.pid):.0f} MB at most",
            flush=True,
        )
        await recognizer.close()
    KEPT.mkdir(parents=True, exist_ok=True)
    for path, document in clips.items():
        path_kept = KEPT / f"{path.stem}.json"
        path_kept.write_text(json.dumps(document, indent=1).replace("\n    ", " ").replace("\n   ]", "]") + "\n")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def scores(clip: Clip) -> dict[str, Score]:
    """The errors of each recognizer and of each reconciled set."""
    heard = {name: " ".join(word.text for word in hypothesis.words) for name, hypothesis in clip.hypotheses.items()}
    for names in SETS:
        heard[" + ".join(names)] = reconcile([clip.hypotheses[name] for name in names]).text
    return {name: score(clip.reference, text) for name, text in heard.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.default_pair", description=__doc__)
    parser.add_argument("--record", action="store_true", help="run the recognizers, and keep what they hear")
    if parser.parse_args().record:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(_record(Path(folder)))
    by_clip = {clip.name: scores(clip) for clip in kept()}
    names = list(next(iter(by_clip.values())))
    for name, clip_scores in by_clip.items():
        counts = "  ".join(f"{clip_scores[column].errors:3}" for column in names)
        print(f"{name:32} {counts}  of {clip_scores[names[0]].words}")
    for name in names:
        total = pooled([clip_scores[name] for clip_scores in by_clip.values()])
        print(f"{name:54} {total.rate:6.1%}  {total.errors} errors of {total.words} words")


if __name__ == "__main__":
    main()
