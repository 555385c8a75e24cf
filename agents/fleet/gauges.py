"""Sets the gauges of a worker (Prometheus) every few seconds, and reports its crash loops in PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from agents.stages import registry
from schemas.errors import Unavailable
from schemas.operations import AppFailure

if TYPE_CHECKING:
    from agents.fleet.fleet import Fleet

log = logging.getLogger(__name__)

#: The name of this process in PostgreSQL: in leases, and in reports of failures.
WORKER = f"{socket.gethostname()}/{os.getpid()}"

#: Seconds between two rounds.
REFRESH_S = 5.0

#: Seconds after which an event that is due and not published is reported.
OVERDUE_S = 60.0


async def observe(fleet: Fleet) -> None:
    """Set the gauges every `REFRESH_S` seconds until cancelled. While the database is away, they are not set."""
    failures: list[AppFailure] = []
    while True:
        try:
            _lag(fleet)
            _oldest(fleet)
            failures = await _report_failures(fleet, failures)
            await _overdue(fleet)
            if registry.RELAY in fleet.roles:
                await _outbox(fleet)
        except Unavailable:
            log.debug("the gauges are not set: the database is away")
        await asyncio.sleep(REFRESH_S)


def _lag(fleet: Fleet) -> None:
    """The lag of this worker's partitions. The gauge is cleared first, to remove partitions that have moved away."""
    gauge = fleet.metrics.lag
    gauge.clear()
    for name, app in fleet.apps.items():
        consumer = app.consumer
        for topic in list(consumer.lost_positions):
            fleet.metrics.lost_positions.labels(topic).inc(consumer.lost_positions.pop(topic))
        for tp in consumer.offsets:
            behind = max(0, (consumer.highwater(tp) or 0) - (consumer.offsets.committable(tp) or 0))
            gauge.labels(name, tp.topic, str(tp.partition)).set(behind)


def _oldest(fleet: Fleet) -> None:
    """The ages of the oldest step and events in this worker, which may wait for PostgreSQL, or for locked rows."""
    fleet.metrics.oldest_step.set(fleet.committer.oldest_s)
    for driver in fleet.drivers.values():
        fleet.metrics.oldest_event.labels(driver.stage_name).set(driver.oldest_s)


async def _overdue(fleet: Fleet) -> None:
    """Events that are due and not published. Every worker reports them, because without the relay all stages stop."""
    fleet.backlog = await fleet.database.overdue(OVERDUE_S)
    fleet.metrics.overdue.clear()
    for overdue in fleet.backlog:
        fleet.metrics.overdue.labels(str(overdue.shard), overdue.topic).set(overdue.rows)


async def _report_failures(fleet: Fleet, reported: list[AppFailure]) -> list[AppFailure]:
    """Store which tasks crash repeatedly or hang, for `concord doctor`; an empty list once after the last `reported`
    ones.
    """
    failures = []
    for task in fleet.tasks:
        fleet.metrics.crash_looping.labels(task.name).set(task.crash_looping)
        if task.crash_looping or task.hung:
            positions = tuple(map(str, task.positions[:3]))
            failures.append(AppFailure(WORKER, task.name, task.restarts, task.error or "", positions))
    if failures or reported:
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
