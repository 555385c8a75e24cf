"""The part of a fleet that runs in this process, and its health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agents.asr.paid_calls import PaidCalls
from agents.asr.rate_limit import WAIT_S, ProviderLimiter
from agents.fleet.settings import Settings
from agents.llm.texts.questions import TextQuestions
from agents.runtime import faust_binding
from agents.runtime.group_commit import Committer
from agents.runtime.metrics import Metrics
from agents.runtime.skips import Skips
from agents.runtime.supervision import SupervisedTask
from agents.stages.registry import NO_STAGES, RELAY
from schemas.errors import Unavailable
from sinks.accounts import Accounts
from sinks.ports.blobs import Store
from sinks.ports.outbox import Overdue
from sinks.ports.providers.slots import Slots
from sinks.postgres.database import Postgres
from sinks.postgres.operations import PostgresOperations
from sinks.postgres.reader import Reader
from web.limits.usage import UsageCounter
from web.live.status_feed import StatusFeeds
from web.ports import Health, LiveJobs

if TYPE_CHECKING:
    import faust

    from schemas.events.job import JobStatus


class LiveTable:
    """The table of the `track` app, which changes when that app is restarted. Without one, statuses come from
    PostgreSQL.
    """

    def __init__(self) -> None:
        self._table: LiveJobs | None = None

    def use(self, table: LiveJobs | None) -> None:
        """Answer from this table, or from none."""
        self._table = table

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """The job's row in the table; None if there is none, or no table."""
        return self._table.get(tenant_id, job_id) if self._table else None


@dataclass
class Fleet:
    """The part of a fleet that runs in this process."""

    settings: Settings
    roles: tuple[str, ...]
    metrics: Metrics
    database: Postgres
    store: Store
    reader: Reader
    url: str
    operations: PostgresOperations
    skips: Skips
    committer: Committer
    #: The tasks of the stages, followed by those in the background.
    tasks: list[SupervisedTask] = field(default_factory=list)
    #: By role, the apps and drivers of the stages that run at present.
    apps: dict[str, faust.App] = field(default_factory=dict)
    drivers: dict[str, faust_binding.Driver] = field(default_factory=dict)
    limiters: list[ProviderLimiter] = field(default_factory=list)
    #: What stages have opened.
    text_questions: TextQuestions | None = None
    #: By name, what stages run in the background.
    background: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    paid: PaidCalls = field(default_factory=PaidCalls)
    table: LiveTable = field(default_factory=LiveTable)
    feeds: StatusFeeds = field(default_factory=StatusFeeds)
    #: Keys and settings, and the requests that are counted; set by `agents.fleet.http.open_accounts`.
    accounts: Accounts = field(init=False)
    usage: UsageCounter = field(init=False)
    #: Places of requests that wait for a recognizer; set there, too.
    queue: Slots = field(init=False)
    #: Events that are due and not published, as of the last query.
    backlog: list[Overdue] = field(default_factory=list)

    @property
    def stages(self) -> tuple[str, ...]:
        """The roles that are stages."""
        return tuple(role for role in self.roles if role not in NO_STAGES)

    def text_limiter(self, provider: str) -> ProviderLimiter:
        """When a text model of this provider may be called; stages and questions over HTTP share one.

        Its pauses are not those of a recognizer of the same name, which may be on another server.
        """
        rate = self.settings.rates.get(provider)
        return self._limiter(f"{provider}.texts", 1 / rate if rate else 0.0)

    def conversation_limiter(self) -> ProviderLimiter:
        """When ElevenLabs may be asked about conversations; the stage and the looks at lists share one. Within a pause
        nobody waits for its end: events come again, and looks are repeated.
        """
        return self._limiter("elevenlabs.conversations", 1 / self.settings.conversation_rate, patience_s=0.0)

    def _limiter(self, name: str, interval_s: float, *, patience_s: float = WAIT_S) -> ProviderLimiter:
        limiter = next((one for one in self.limiters if one.provider == name), None)
        if limiter is None:
            limiter = ProviderLimiter(self.database, name, interval_s=interval_s, patience_s=patience_s)
            self.limiters.append(limiter)
        return limiter

    def failure(self) -> str | None:
        """A task that crashes repeatedly or hangs, and why; None if there is none."""
        return next((f"{task.name} {task.summary}" for task in self.tasks if task.crash_looping or task.hung), None)

    def hung(self) -> str | None:
        """A task that failed and does not end, so that this process has to be restarted; None if there is none."""
        return next((f"{task.name} {task.summary}" for task in self.tasks if task.hung), None)

    async def drained(self) -> bool:
        """Whether all topics are read to their ends, no event is handled, no run is open, and nothing is due soon."""
        for app in self.apps.values():
            consumer = app.consumer
            if not consumer.offsets.idle:
                return False
            for tp in [tp for tp in consumer.assignment() if app.topics.acks_enabled_for(tp.topic)]:
                position, end = await consumer.position(tp), consumer.highwater(tp)
                if position is None or end is None or position < end:  # the end is None until the first fetch
                    return False
        return await self.database.idle()

    @property
    def ready(self) -> dict[str, bool]:
        """By stage, whether it has joined its group and consumes events. (It may have no partitions.)"""
        return {name: self._consumes(name) for name in self.stages}

    def _consumes(self, name: str) -> bool:
        app = self.apps.get(name)
        return app is not None and bool(app.started and not app.rebalancing and not app.in_recovery)

    async def health(self) -> Health:
        """The answer to `/healthz` and `/readyz`."""
        details = {name: "ready" if ready else "joining" for name, ready in self.ready.items()}
        try:
            async with asyncio.timeout(2):
                await self.database.now()
            details["postgresql"] = "ready"
        except (Unavailable, TimeoutError):
            details["postgresql"] = "away"
        details |= {task.name: f"crash-looping: {task.summary}" for task in self.tasks if task.crash_looping}
        details |= {task.name: f"hung: {task.summary}" for task in self.tasks if task.hung}
        ready = all(state == "ready" for state in details.values()) and not self.stuck
        details |= {f"outbox {late.shard} {late.topic}": str(late) for late in self.backlog[:10]}
        return Health(self.hung() is None, ready, details)

    @property
    def stuck(self) -> bool:
        """Whether this worker's relay publishes nothing, or too slowly. A single topic or event that Kafka does not
        accept (`Overdue.apart`) is no reason to take the worker out of service: all others are published.
        """
        return RELAY in self.roles and not all(late.apart for late in self.backlog)
