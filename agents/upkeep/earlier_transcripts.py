"""Has transcripts indexed that were completed before there was an index, or while none was made: a few at a time, of
all tenants in turn, until none is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final, Protocol

from agents.upkeep.scheduler import beginning
from schemas import ids
from schemas.errors import Unavailable
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Job
from sinks.ports.steps import Steps
from sinks.ports.upkeep.earlier_transcripts import EarlierTranscripts

log = logging.getLogger(__name__)

#: The stage name of these steps, and the author in the audit log.
NAME: Final = "index earlier"

#: Jobs of a look, and those of a fleet that may wait for the stage: new recordings do not wait behind thousands.
PAGE, OPEN = 20, 40

#: Seconds between two looks while there are more, and once there are none.
PAUSE_S, IDLE_S = 1.0, 60.0


class Database(Steps, EarlierTranscripts, Protocol):
    """What is asked of the database."""


async def index_earlier_transcripts(database: Database, enrichments: Collection[str]) -> None:
    """Run until cancelled. Without the kind `index` there is nothing to do, but to wait."""
    while True:
        begun = 0
        if "index" in enrichments:
            try:
                begun = await begin_some(database)
            except Unavailable as exc:
                log.debug("earlier transcripts wait to be indexed: %s", exc)
        await asyncio.sleep(PAUSE_S if begun else IDLE_S)


async def begin_some(database: Database) -> int:
    """Have the next ones indexed; how many. Raises Unavailable."""
    jobs = await database.never_indexed(PAGE, OPEN)
    written = await database.commit([_beginning(job) for job in jobs]) if jobs else []
    # What was begun before a kill, or by another worker, was not begun here.
    return sum(one is not None and one.applied for one in written)


def _beginning(job: Job) -> Step:
    about = f"{job.job_id}/{job.run}/{job.transcript_version}"
    return Step(NAME, ids.ingress_id(job.tenant_id, NAME, about), beginning(job, "index", NAME))
