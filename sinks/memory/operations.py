"""The double of what workers and operators tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from schemas.operations import AppFailure, Skip
from sinks.memory.state import MemoryState
from sinks.ports.operations import Operations

_Place = tuple[str, int, int]


@dataclass
class MemoryOperations(MemoryState, Operations):
    """`Operations` in this process."""

    #: By worker and its part: the failure, and when it was reported.
    _failures: dict[tuple[str, str], tuple[AppFailure, datetime]] = field(default_factory=dict)
    #: By topic, partition and offset: the skip, and the stages that have skipped the record.
    _skips: dict[_Place, tuple[Skip, list[str]]] = field(default_factory=dict)

    async def keep_failures(self, worker: str, failures: Sequence[AppFailure]) -> None:
        """Replace what this worker reports of its failing parts."""
        now = self.clock()
        others = {key: row for key, row in self._failures.items() if key[0] != worker}
        recent = {key: row for key, row in others.items() if row[1] >= now - timedelta(days=1)}
        self._failures = recent | {(worker, f.app): (replace(f, worker=worker), now) for f in failures}

    async def failures(self) -> list[AppFailure]:
        """What all workers reported within a day."""
        now = self.clock()
        rows = [row for _, row in sorted(self._failures.items())]
        return [replace(failure, seen_s=(now - at).total_seconds()) for failure, at in rows]

    async def ask(self, skip: Skip) -> None:
        """Have every worker skip this record from now on."""
        self._skips[_place(skip)] = skip, []

    async def skips(self) -> list[Skip]:
        """The records that workers skip."""
        return [skip for skip, _ in self._skips.values()]

    async def done(self, skip: Skip, stage: str) -> None:
        """Note that a stage has skipped the record."""
        stages = self._skips.get(_place(skip), (skip, []))[1]
        if stage not in stages:
            stages.append(stage)

    async def done_by(self, skip: Skip) -> list[str]:
        """The stages that have skipped the record."""
        return list(self._skips.get(_place(skip), (skip, []))[1])


def _place(skip: Skip) -> _Place:
    return skip.topic, skip.partition, skip.offset
