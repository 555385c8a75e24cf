"""The demo's recordings: a synthetic call, and people reading, one through a telephone and one in noise.

Undisturbed, the readers are understood by each recognizer alone: there is nothing to reconcile.
"""

from __future__ import annotations

import contextlib
import re
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agents.embedded.sample_call import sample_call
from agents.media.decoding.decoder import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Sound = NDArray[np.floating]

#: Two recordings of people reading; README.md there has what they say, who they are, and under which licence.
PEOPLE = Path(__file__).with_name("recordings")

#: Hertz of all recordings.
RATE = 16_000

_LINE = re.compile(r"^\s*(?:[-*]\s+)?`(?P<name>[^`]+)`:\s+(?P<text>\S.*)$", re.MULTILINE)


def reference_text(path: Path) -> str | None:
    """The text that is spoken in a recording, from a text file or a README beside it; None if there is none."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.with_suffix(".txt").read_text()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = _LINE.finditer((path.parent / "README.md").read_text())
        return next((line["text"].strip() for line in lines if line["name"] == path.name), None)
    return None


def telephone(samples: Sound) -> Sound:
    """What a telephone lets through: 300 to 3400 Hz."""
    spectrum, hertz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(hertz < 300) | (hertz > 3400)] = 0
    narrow: Sound = np.fft.irfft(spectrum, len(samples))
    return narrow


def noise(samples: Sound) -> Sound:
    """With pink noise 5 dB below the speech."""
    spectrum = np.fft.rfft(np.random.default_rng(12).normal(size=len(samples)))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    pink = np.fft.irfft(spectrum, len(samples))
    loudness = float(np.sqrt(np.mean(samples**2) / np.mean(pink**2)) * 10 ** (-5 / 20))
    return samples + pink * loudness


def demo_recordings(folder: Path) -> list[Path]:
    """The paths of the recordings in this folder, each with a file of its text; those that are missing are created.

    Blocks for a second. Raises ServerError when the package with the voices is missing.
    """
    call = sample_call(folder)
    disturbed = ((PEOPLE / "two-cities.flac", telephone), (PEOPLE / "sense-and-sensibility.flac", noise))
    return [call, *(_disturbed(source, folder, line) for source, line in disturbed)]


def _disturbed(source: Path, folder: Path, line: Callable[[Sound], Sound]) -> Path:
    path = folder / f"{source.stem}-{line.__name__}.wav"
    if not path.exists():
        path.with_suffix(".txt").write_text(f"{reference_text(source)}\n")
        write(path, line(np.concatenate(list(decode(source, RATE)))))
    return path


def write(path: Path, samples: Sound) -> Path:
    """A WAV file with these samples (-1 to 1) at `RATE`, complete or not there; its path."""
    part = path.with_suffix(".part")
    with wave.open(str(part), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes())
    part.rename(path)
    return path
