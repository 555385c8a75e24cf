"""The parts of a fleet that run in this process, and how they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agents.asr.paid_calls import PaidCalls
from agents.asr.rate_limit import ProviderLimiter
from agents.fleet.settings import Settings
from agents.runtime import faust_binding
from agents.runtime.group_commit import Committer
from agents.runtime.metrics import Metrics
from agents.runtime.skips import Skips
from agents.runtime.supervision import SupervisedTask
from schemas.errors import Unavailable
from sinks.ports.blobs import Store
from sinks.ports.outbox import Overdue
from sinks.postgres.database import Postgres
from sinks.postgres.operations import PostgresOperations
from sinks.postgres.reader import Reader
from web.live.status_feed import StatusFeeds
from web.ports import Health, LiveJobs

if TYPE_CHECKING:
    import faust

    from schemas.events.job import JobStatus


class LiveTable:
    """The table of the `track` app that runs now. While none does, every status comes from PostgreSQL."""

    def __init__(self) -> None:
        self._table: LiveJobs | None = None

    def use(self, table: LiveJobs | None) -> None:
        """From now on this one, or none."""
        self._table = table

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """What the table says."""
        return self._table.get(tenant_id, job_id) if self._table else None


@dataclass
class Fleet:
    """The parts of a fleet that run in this process."""

    settings: Settings
    roles: tuple[str, ...]
    metrics: Metrics
    database: Postgres
    store: Store
    reader: Reader
    url: str
    operations: PostgresOperations
    skips: Skips
    #: What keeps running: the stages first, then what goes on beside them.
    parts: list[SupervisedTask] = field(default_factory=list)
    #: Of the stages that run at the moment.
    apps: dict[str, faust.App] = field(default_factory=dict)
    drivers: dict[str, faust_binding.Driver] = field(default_factory=dict)
    committer: Committer | None = None
    limiters: list[ProviderLimiter] = field(default_factory=list)
    #: What else goes on for a stage, by what it is called.
    beside: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    paid: PaidCalls = field(default_factory=PaidCalls)
    table: LiveTable = field(default_factory=LiveTable)
    feeds: StatusFeeds = field(default_factory=StatusFeeds)
    #: What is due and not published, at the last look.
    backlog: list[Overdue] = field(default_factory=list)

    @property
    def stages(self) -> tuple[str, ...]:
        """The roles that are stages."""
        return tuple(role for role in self.roles if role != "relay")

    def failure(self) -> str | None:
        """What keeps failing, or None."""
        return next((f"{part.name} {part.summary}" for part in self.parts if part.crash_looping or part.hung), None)

    def hung(self) -> str | None:
        """What failed and does not end, so that it cannot be started again in this process, or None."""
        return next((f"{part.name} {part.summary}" for part in self.parts if part.hung), None)

    async def drained(self) -> bool:
        """Whether every topic is read to its end, nothing is in flight, no run is open and nothing is due soon."""
        for app in self.apps.values():
            consumer = app.consumer
            if not consumer.offsets.idle:
                return False
            for tp in [tp for tp in consumer.assignment() if app.topics.acks_enabled_for(tp.topic)]:
                position, end = await consumer.position(tp), consumer.highwater(tp)
                if position is None or end is None or position < end:  # the end is known after the first fetch
                    return False
        return await self.database.idle()

    @property
    def ready(self) -> dict[str, bool]:
        """Which stages have joined their groups and take events. (A spare worker without partitions is ready, too.)"""
        return {name: self._takes_events(name) for name in self.stages}

    def _takes_events(self, name: str) -> bool:
        app = self.apps.get(name)
        return app is not None and bool(app.started and not app.rebalancing and not app.in_recovery)

    async def health(self) -> Health:
        """What probes are told."""
        details = {name: "ready" if ready else "joining" for name, ready in self.ready.items()}
        try:
            async with asyncio.timeout(2):
                await self.database.now()
            details["postgresql"] = "ready"
        except (Unavailable, TimeoutError):
            details["postgresql"] = "away"
        details |= {part.name: f"crash-looping: {part.summary}" for part in self.parts if part.crash_looping}
        details |= {part.name: f"hung: {part.summary}" for part in self.parts if part.hung}
        ready = all(state == "ready" for state in details.values()) and not self.stuck
        details |= {f"outbox {late.shard} {late.topic}": str(late) for late in self.backlog[:10]}
        return Health(self.hung() is None, ready, details)

    @property
    def stuck(self) -> bool:
        """Whether this worker's relay publishes nothing, or too little. A single topic or event that Kafka does not
        take is told, too, but is no reason to send a worker away: the others go on.
        """
        return "relay" in self.roles and not all(late.apart for late in self.backlog)
