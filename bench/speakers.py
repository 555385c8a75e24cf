"""Who said which word: calls of two speakers with overlaps, mono and stereo, through the local recognizers.

`python -m bench.speakers` prints, for each call, the share of words with a wrong speaker, and the time and memory that
telling speakers apart takes. A word's right speaker is who speaks at its middle; where both do, the one who says this
word there when heard alone. Words that are neither are not counted, and their share is printed.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from agents.asr.protocols import Request
from agents.fleet.environment import from_env
from agents.fleet.recognizers import open_recognizer
from bench.speaker_calls import RATE, Samples
from schemas.words import Hypothesis, adapter

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
