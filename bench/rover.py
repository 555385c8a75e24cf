"""NIST's own `rover`, which comes with SCTK, where it is installed: what plain voting really is."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from agents.text.alignment.network import spoken
from bench.corpora import Sample

#: rover takes the square of a file's length, so a call is given to it in pieces of about so many slots, cut in the
#: middle of this many slots in a row that all recognizers agree on.
PIECE, AGREED = 80, 5
#: Voting by number of votes alone.
VOTING = ("-m", "meth1", "-a", "1.0", "-c", "0.0")
TIMEOUT_S = 120


def rover(program: str, part: Sample) -> str:
    """What rover makes of a sample, from the tokens that are scored. Recognizers in the order of their names."""
    network, _ = spoken(part.network)
    cuts = _cuts(network.unanimous)
    order = sorted(range(len(network.columns)), key=lambda k: network.columns[k].hypothesis.provider)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place}.ctm" for place in range(len(order))]
        for file, k in zip(files, order, strict=True):
            file.write_text(_ctm(network.key[:, k], cuts))
        heard = [argument for file in files for argument in ("-h", str(file), "ctm")]
        voted = Path(folder) / "voted.ctm"
        subprocess.run([program, *heard, "-o", str(voted), *VOTING], check=True, capture_output=True, timeout=TIMEOUT_S)
        keys = [line.split()[4] for line in voted.read_text().splitlines() if not line.startswith(";;")]
    return " ".join(network.names[int(key[1:])] for key in keys if key != "@")


def _cuts(unanimous: np.ndarray) -> list[int]:
    """Where pieces begin, but the first."""
    cuts, last, run = [], 0, 0
    for slot, agreed in enumerate(unanimous.tolist()):
        run = run + 1 if agreed else 0
        middle = slot - AGREED // 2
        if run >= AGREED and middle - last >= PIECE:
            cuts.append(middle)
            last = middle
    return cuts


def _ctm(keys: np.ndarray, cuts: list[int]) -> str:
    """One recognizer's tokens in NIST's format: file, channel, start, duration, word. Words are numbers here, which no
    sign in them can upset, and slots are their times.
    """
    slots = np.flatnonzero(keys >= 0)
    piece = np.searchsorted(cuts, slots, side="right")
    rows = zip(piece.tolist(), slots.tolist(), keys[slots].tolist(), strict=True)
    return "".join(f"p{number:05} 1 {slot}.00 0.90 w{key} 1.0\n" for number, slot, key in rows)
