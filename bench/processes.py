"""CPU and memory of processes, from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living descendants and those it has waited for."""
    try:
        stat, children = _stat(pid), _children(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = sum(int(stat[field]) for field in (11, 12, 13, 14)) / _TICK
    return own + sum(cpu_seconds(child) for child in children)


def resident_mb(pid: int) -> float:
    """Resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB


def family(pid: int) -> list[int]:
    """A process and all its living descendants; empty if it is gone."""
    try:
        return [pid, *(member for child in _children(pid) for member in family(child))]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command(pid: int) -> list[str]:
    """What a process was started as; empty if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    return []


def peak_mb(pid: int) -> float:
    """The most resident memory that one process has ever had, as the kernel counted it (VmHWM); 0 if it is gone."""
    return _kilobytes(f"/proc/{pid}/status", "VmHWM") / 1024


def share_mb(pid: int) -> float:
    """Resident memory of one process, with each page that others use too counted in parts (PSS); 0 if it is gone."""
    return _kilobytes(f"/proc/{pid}/smaps_rollup", "Pss") / 1024


def _kilobytes(file: str, name: str) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0
