"""A fleet in one process without Kafka, for tests: all stages, events that are serialized as for Kafka, and a clock of
its own.

The clock stands still while there are events, and then jumps to the time at which the next outbox row is due. So hours
of backoff and polling take milliseconds, and a test always runs in the same order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from agents.runtime.group_commit import Committer
from agents.runtime.stage import Stage, TableStage, step
from schemas import ids
from schemas.envelope import Headers, Record
from schemas.errors import ConcordError, Unavailable
from schemas.events.base import Data
from schemas.events.job import JobStatus
from schemas.messages import dump_headers, load_headers
from sinks.memory.database import MemoryDatabase


@dataclass
class Clock:
    """A clock that only moves when a test advances it."""

    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.at += timedelta(seconds=seconds)


@dataclass
class MemoryFleet:
    """Stages on a `MemoryDatabase`. `log` contains all published records, by topic, as a consumer would read them."""

    stages: Sequence[Stage]
    database: MemoryDatabase
    clock: Clock
    #: The stage that keeps the table of `job.status`.
    tracked: TableStage
    log: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    #: The table `jobs`, as JSON text, so that a row that is changed in place is lost as it would be in the changelog.
    table: dict[str, bytes] = field(default_factory=dict)
    _queues: dict[str, deque[Record]] = field(default_factory=lambda: defaultdict(deque))

    def __post_init__(self) -> None:
        self._committer = Committer(self.database)

    def publish(
        self, topic: str, value: bytes | Data | None, key: bytes | None = None, headers: Headers = ()
    ) -> Record:
        """Publish a record to a topic, as any producer or the relay would."""
        content = value.model_dump_json().encode() if isinstance(value, Data) else value
        headers = tuple(load_headers(dump_headers(headers)))
        record = Record(topic, 0, len(self.log[topic]), key, content, headers, int(self.clock().timestamp() * 1000))
        self.log[topic].append(record)
        for stage in self.stages:
            if topic in stage.topics:
                self._queues[stage.name].append(record)
        if topic == self.tracked.topic.name:
            self._track(record)
        return record

    def deliver_again(self, record: Record) -> None:
        """Deliver a record a second time, as after a crash before its offset was committed."""
        for stage in self.stages:
            if record.topic in stage.topics:
                self._queues[stage.name].append(record)

    def _track(self, record: Record) -> None:
        if (key := self.tracked.deleted(record)) is not None:
            self.table.pop(key, None)
            return
        status = self.tracked.newest(self._row, record)
        if status is not None:
            self.table[self.tracked.key_of(status)] = orjson.dumps(status.model_dump(mode="json"))

    def _row(self, key: str) -> dict[str, Any] | None:
        row = self.table.get(key)
        return orjson.loads(row) if row else None

    async def run(self, *, until: timedelta = timedelta(days=1), steps: int = 10_000) -> None:
        """Handle events until none is left that is due within `until` from now.

        Raises:
            ConcordError: There still are events after `steps` of them, as in an endless loop.
        """
        end = self.clock() + until
        for _ in range(steps):
            if await self._one():
                continue
            due = min((due for due, _ in self.database.outbox), default=None)
            if due is None or due > end:
                return
            self.clock.at = max(self.clock.at, due)
            self._relay()
        raise ConcordError(f"the fleet is not idle after {steps} events")

    async def _one(self) -> bool:
        for stage in self.stages:
            if self._queues[stage.name]:
                # It stays in the queue until it is committed; if one of our servers is away, it is handled later.
                record = self._queues[stage.name][0]
                try:
                    await self._committer.commit(await step(stage, record))
                except Unavailable:
                    self._queues[stage.name].rotate(-1)
                    self.clock.advance(1.0)
                else:
                    self._queues[stage.name].popleft()
                self._relay()
                return True
        self._relay()
        return any(self._queues.values())

    def _relay(self) -> None:
        due = [message for at, message in self.database.outbox if at <= self.clock()]
        self.database.outbox = [(at, message) for at, message in self.database.outbox if at > self.clock()]
        for message in due:
            self.publish(message.topic, message.value, message.key, message.headers)

    def events(self, topic: str) -> list[dict[str, object]]:
        """The data of all events of a topic."""
        return [orjson.loads(record.value or b"null") for record in self.log[topic]]

    def status(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """The job's row in the table, or None."""
        row = self.table.get(ids.job_key(tenant_id, job_id))
        return JobStatus.model_validate_json(row) if row else None
