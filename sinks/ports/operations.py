"""The port of what workers report to operators and operators ask of workers: parts that fail, records to skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.operations import AppFailure, Skip


class Operations(Protocol):
    """Rows that outlive the process that wrote them: failures for a day, skips for as long as Kafka may redeliver."""

    async def keep_failures(self, worker: str, failures: Sequence[AppFailure]) -> None:
        """Replace what this worker reports of its failing parts."""

    async def failures(self) -> list[AppFailure]:
        """What all workers reported within a day."""

    async def ask(self, skip: Skip) -> None:
        """Have every worker skip this record from now on. Asked again, the newest wish counts."""

    async def skips(self) -> list[Skip]:
        """The records that workers skip."""

    async def done(self, skip: Skip, stage: str) -> None:
        """Note that a stage has skipped the record; once, however often it is noted."""

    async def done_by(self, skip: Skip) -> list[str]:
        """The stages that have skipped the record."""
