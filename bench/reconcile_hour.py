"""Time and memory of reconciling an hour: `python -m bench.reconcile_hour CORPORA RECOGNIZERS` prints [seconds, MB]."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from agents.text.reconcile import reconcile
from bench.corpora import load_call
from schemas.words import Hypothesis

#: Words in an hour, at the 150 a minute that people speak.
HOUR = 9000


def main(corpora: Path, size: int) -> None:
    """The best of some runs, and the most memory of this process, which does nothing else."""
    path = max((corpora / "earnings21").glob("*.json.gz"), key=lambda path: path.stat().st_size)
    call = load_call(path)
    heard = [Hypothesis(name, call.hypotheses[name].words[:HOUR]) for name in sorted(call.hypotheses)[-size:]]
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        reconcile(heard)
        seconds.append(time.perf_counter() - started)
    print(json.dumps([min(seconds), memory()]))


def memory() -> float:
    """The most memory this process had, MB. Linux' getrusage would count the parent's as well."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
