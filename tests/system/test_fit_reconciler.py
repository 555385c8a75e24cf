"""Fitting the reconciler is reproducible: the same bytes, also in another process with another hash seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.text.calibration.calibrate import NGRAMS, TREES, load

ROOT = Path(__file__).parents[2]
CORPORA = ROOT.parent / "shared" / "corpora"

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CORPORA.is_dir(), reason="no ../shared/corpora beside this work tree"),
]


def fitted(output, seed):
    """A calibration fitted on a few calls, as two files."""
    output.mkdir()
    command = [sys.executable, "-m", "bench.fit_reconciler", "--every", "14", "--output", str(output)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, timeout=900)
    return [(output / name).read_bytes() for name in (TREES, NGRAMS)]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    first, second = (fitted(tmp_path / seed, seed) for seed in ("1", "2"))

    assert first == second
    assert load(*first).pair.second.trees
