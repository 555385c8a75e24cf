"""Records that an operator wants passed over, whatever they do: rows of PostgreSQL, which every worker obeys.

Not offsets: Kafka refuses those from outsiders while a group has members, and a fleet that crashes at a record has
members every few seconds. Rows are read at the start, before anything else is, and every few seconds; they hold for a
fleet that runs, for one that crashes, and for one that is started later.
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

#: Seconds between looks for what is new.
LOOK_S = 5.0


class SkipRows(Protocol):
    """Where they are kept."""

    async def skips(self) -> list[Skip]:
        """What is to be passed over."""

    async def done(self, skip: Skip, stage: str) -> None:
        """A stage has passed the record over."""


class Skips:
    """What is known of them in this worker; read by the threads of its consumers, too."""

    def __init__(self, rows: SkipRows) -> None:
        self._rows = rows
        self._known: list[Skip] = []

    async def look(self) -> None:
        """Read them anew. Raises Unavailable."""
        self._known = await self._rows.skips()

    async def run(self) -> None:
        """Look every few seconds. Never returns."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Unavailable:
                log.debug("a look for records to pass over was missed: the database is away")

    def of(self, record: Record) -> Skip | None:
        """The wish that this record be passed over, if there is one."""
        first, last = record.flaw.offsets if record.flaw and record.flaw.offsets else (record.offset, record.offset)
        for skip in self._within(record.topic, record.partition, first, last):
            if skip.unread or skip.timestamp_ms in (None, record.timestamp_ms):
                return skip
        return None

    def unread(self, topic: str, partition: int, first: int, last: int) -> str | None:
        """Why a batch of these offsets is not to be unpacked, if it is not."""
        return next((skip.reason for skip in self._within(topic, partition, first, last) if skip.unread), None)

    def _within(self, topic: str, partition: int, first: int, last: int) -> list[Skip]:
        there = (skip for skip in self._known if (skip.topic, skip.partition) == (topic, partition))
        return [skip for skip in there if first <= skip.offset <= last]

    async def done(self, skip: Skip, stage: str) -> None:
        """Tell that a stage has passed it over."""
        log.warning("%s passes over %s/%d/%d: %s", stage, skip.topic, skip.partition, skip.offset, skip.reason)
        try:
            await self._rows.done(skip, stage)
        except Unavailable:
            log.warning("nobody is told: the database is away")


def refusing(stage: Stage, skip: Skip) -> Stage:
    """The stage as it meets the record: it handles nothing, and gives it up for that reason."""

    async def refuse(_: Envelope) -> Outcome:
        raise Skipped(skip.reason)

    return replace(stage, handle=refuse)
