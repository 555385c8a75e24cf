"""Records that an operator has excluded from handling (`concord skip`): rows in PostgreSQL that every worker reads.

Moving the group's offsets instead is impossible: Kafka refuses commits from outside while a group has members, and a
fleet that crashes at a record has members every few seconds. The rows are read before a worker consumes anything, and
every few seconds; so they work for a fleet that runs, for one that crashes, and for one that is started later.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Protocol

from agents.runtime.stage import Stage
from schemas.envelope import Envelope, Record
from schemas.errors import Skipped, Unavailable
from schemas.jobs.outcome import Outcome
from schemas.operations import Skip

log = logging.getLogger(__name__)

#: Seconds between two reads of the rows.
REFRESH_S = 5.0


class SkipRows(Protocol):
    """The table of skipped records. Both methods raise Unavailable when the database cannot be reached."""

    async def skips(self) -> list[Skip]:
        """All records that are to be skipped."""

    async def done(self, skip: Skip, stage: str) -> None:
        """Note that a stage has skipped the record."""


class Skips:
    """This worker's copy of the table. The threads of its consumers read it, too."""

    def __init__(self, rows: SkipRows) -> None:
        self._rows = rows
        self._skips: list[Skip] = []

    async def refresh(self) -> None:
        """Read the table. Raises Unavailable, and then keeps the previous copy."""
        self._skips = await self._rows.skips()

    async def run(self) -> None:
        """Read the table every `REFRESH_S` seconds until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Unavailable:
                log.debug("the skipped records were not read: the database is unavailable")

    def of(self, record: Record) -> Skip | None:
        """The row that has this record skipped, if there is one."""
        first, last = record.flaw.offsets if record.flaw and record.flaw.offsets else (record.offset, record.offset)
        for skip in self._within(record.topic, record.partition, first, last):
            if skip.unread or skip.timestamp_ms in (None, record.timestamp_ms):
                return skip
        return None

    def unread(self, topic: str, partition: int, first: int, last: int) -> str | None:
        """Why the batch with the offsets `first` to `last` must not be unpacked; None if it may be."""
        return next((skip.reason for skip in self._within(topic, partition, first, last) if skip.unread), None)

    def _within(self, topic: str, partition: int, first: int, last: int) -> list[Skip]:
        of_partition = (skip for skip in self._skips if (skip.topic, skip.partition) == (topic, partition))
        return [skip for skip in of_partition if first <= skip.offset <= last]

    async def done(self, skip: Skip, stage: str) -> None:
        """Log, and note in the table, that a stage has skipped the record. Raises nothing."""
        log.warning("%s skips %s/%d/%d: %s", stage, skip.topic, skip.partition, skip.offset, skip.reason)
        try:
            await self._rows.done(skip, stage)
        except Unavailable:
            log.warning("the skip is not noted in the table: the database is unavailable")


def refusing(stage: Stage, skip: Skip) -> Stage:
    """A copy of the stage that gives up its event with `Skipped`, instead of handling it."""

    async def refuse(_: Envelope) -> Outcome:
        raise Skipped(skip.reason)

    return replace(stage, handle=refuse)
