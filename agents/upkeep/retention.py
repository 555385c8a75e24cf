"""Forgets rows that nobody needs any more, faster than they come: in slices, with pauses, by one worker at a time.

A recording leaves ten to twenty rows in `inbox` and in `audit_log`. A slice of 5,000 takes some 10 ms; with pauses of
four times that, 80,000 rows a second were forgotten on two busy cores, and 60 recordings a second make 1,200.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.errors import Unavailable
from sinks.ports.upkeep.retention import ExpiresRows

log = logging.getLogger(__name__)

#: Days for which rows are remembered, by table. Handled events: twice as long as Kafka keeps their records. Answers of
#: judges: after that nobody asks the same again. Leases that ran out say nothing. `usage` is what was paid, and stays.
DAYS: Final[Mapping[str, float]] = {"inbox": 14.0, "adjudications": 90.0, "leases": 1.0}

#: Rows of one transaction at most, and seconds between two rounds and between two slices at least.
SLICE, ROUND_S, PAUSE_S = 5000, 60.0, 0.05

#: How much longer than a slice the pause after it is.
REST = 4


@dataclass(frozen=True)
class Retention:
    """`run` never returns by itself."""

    database: ExpiresRows
    #: By table.
    days: Mapping[str, float]

    async def run(self) -> None:
        """Forget again and again. A round that finds the database away is only missed."""
        while True:
            try:
                await self.round()
            except Unavailable as exc:
                log.debug("a round was missed: %s", exc)
            await asyncio.sleep(ROUND_S)

    async def round(self) -> int:
        """Forget everything that is old enough; how many rows that was. Raises `Unavailable`."""
        return sum([await self._forget(table, days) for table, days in self.days.items()])

    async def _forget(self, table: str, days: float) -> int:
        forgotten = 0
        while True:
            began = time.monotonic()
            rows = await self.database.forget(table, days, SLICE)
            forgotten += rows or 0
            if rows is None or rows < SLICE:
                return forgotten
            await asyncio.sleep(max(PAUSE_S, REST * (time.monotonic() - began)))
