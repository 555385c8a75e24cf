"""Memory is returned to the kernel after a peak: measured in separate processes, with and without the tuning."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

#: A block as large as a part of an upload comes and goes, then as much again in blocks such as JSON takes.
MOMENT = """
import sys
from pathlib import Path
from agents.fleet.process.malloc import release_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "told":
    release_freed_memory()
before = resident()
part = b"x" * (16 << 20)
del part
blocks = [b"x" * 900_000 for _ in range(20)]
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_what_was_needed_for_a_moment_is_given_back():
    left, kept = moment("told"), moment("untold")

    assert left < 4 << 20 < 15 << 20 < kept


def moment(how):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", MOMENT, how], cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout)
