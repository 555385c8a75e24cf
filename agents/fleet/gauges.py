"""Looks at the fleet every few seconds: gauges for operators."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from schemas.errors import Unavailable
from schemas.operations import AppFailure

if TYPE_CHECKING:
    from agents.fleet.fleet import Fleet

log = logging.getLogger(__name__)

#: How this process is called in what it tells.
WORKER = f"{socket.gethostname()}/{os.getpid()}"

#: Seconds between looks.
LOOK_S = 5.0

#: Seconds after which an event that is due and not published is worth a word.
OVERDUE_S = 60.0


async def observe(fleet: Fleet) -> None:
    """Never returns by itself. A look that finds a server away is only missed."""
    told: list[AppFailure] = []
    while True:
        try:
            _lag(fleet)
            _waiting(fleet)
            told = await _failures(fleet, told)
            await _overdue(fleet)
            if "relay" in fleet.roles:
                await _outbox(fleet)
        except Unavailable:
            log.debug("a look was missed: the database is away")
        await asyncio.sleep(LOOK_S)


def _lag(fleet: Fleet) -> None:
    """Of the partitions that this worker has; cleared first, so that what moved away does not stay."""
    gauge = fleet.metrics.lag
    gauge.clear()
    for name, app in fleet.apps.items():
        consumer = app.consumer
        for topic in list(consumer.lost_positions):
            fleet.metrics.lost_positions.labels(topic).inc(consumer.lost_positions.pop(topic))
        for tp in consumer.offsets:
            behind = max(0, (consumer.highwater(tp) or 0) - (consumer.offsets.committable(tp) or 0))
            gauge.labels(name, tp.topic, str(tp.partition)).set(behind)


def _waiting(fleet: Fleet) -> None:
    """What waits in this worker, for PostgreSQL or for rows that somebody has locked."""
    if fleet.committer is not None:
        fleet.metrics.oldest_step.set(fleet.committer.oldest_s)
    for driver in fleet.drivers.values():
        fleet.metrics.oldest_event.labels(driver.stage_name).set(driver.oldest_s)


async def _overdue(fleet: Fleet) -> None:
    """What is due and not published, which every worker tells: without the relay, nothing moves anywhere."""
    fleet.backlog = await fleet.database.overdue(OVERDUE_S)
    fleet.metrics.overdue.clear()
    for late in fleet.backlog:
        fleet.metrics.overdue.labels(str(late.shard), late.topic).set(late.rows)


async def _failures(fleet: Fleet, told: list[AppFailure]) -> list[AppFailure]:
    """What fails again and again, told to whoever asks PostgreSQL; nothing once more if that was `told` last."""
    failures = []
    for part in fleet.parts:
        fleet.metrics.crash_looping.labels(part.name).set(part.crash_looping)
        if part.crash_looping or part.hung:
            places = tuple(map(str, part.positions[:3]))
            failures.append(AppFailure(WORKER, part.name, part.restarts, part.error or "", places))
    if failures or told:
        await fleet.operations.keep_failures(WORKER, failures)
    return failures


async def _outbox(fleet: Fleet) -> None:
    fleet.metrics.set_aside.clear()
    for topic, count in (await fleet.database.count_refused()).items():
        fleet.metrics.set_aside.labels(topic).set(count)
    rows, oldest = fleet.metrics.outbox, fleet.metrics.oldest
    rows.clear()
    oldest.clear()
    for row in await fleet.database.outbox_depth():
        rows.labels(str(row["shard"]), "due").set(row["due"])
        rows.labels(str(row["shard"]), "waiting").set(row["waiting"])
        oldest.labels(str(row["shard"])).set(row["oldest_s"])
    fleet.metrics.jobs.clear()
    for status, count in (await fleet.reader.counts()).items():
        fleet.metrics.jobs.labels(status).set(count)
