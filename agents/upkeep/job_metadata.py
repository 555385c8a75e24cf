"""Indexes the metadata of jobs that an earlier version stored, a few at a time, until it has come to the last."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from schemas.errors import Unavailable
from sinks.ports.upkeep.job_metadata import IndexesMetadata

log = logging.getLogger(__name__)

#: Jobs in one transaction: 0.05 s, with four pairs each. Seconds between two, and after an outage.
SLICE, PAUSE_S, OUTAGE_S = 500, 0.1, 10.0

#: Seconds between looks whether an earlier version's jobs are there, once all are indexed: a backup may be restored.
IDLE_S: Final = 3600.0


async def index_earlier_jobs(database: IndexesMetadata) -> None:
    """Run until cancelled."""
    while True:
        try:
            more = await database.index_metadata(SLICE)
        except Unavailable as exc:
            log.debug("the metadata of earlier jobs wait to be indexed: %s", exc)
            await asyncio.sleep(OUTAGE_S)
        else:
            await asyncio.sleep(PAUSE_S if more else IDLE_S)
