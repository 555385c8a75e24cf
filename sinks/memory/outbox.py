"""The double of the outbox as operators see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from schemas.ids import Key
from schemas.messages import Message, dump_headers
from sinks.memory.state import MemoryState
from sinks.ports.outbox import Outbox


@dataclass
class MemoryOutbox(MemoryState, Outbox):
    """`Outbox` in this process."""

    #: By id, in their order: the columns that `refused` tells.
    _refused: dict[int, dict[str, Any]] = field(default_factory=dict)
    _last_refused: int = 0

    def set_aside(self, topic: str, error: str) -> None:
        """Take a topic's events out of the outbox as a relay does when Kafka refuses them for good."""
        for due, message in [(due, m) for due, m in self.outbox if m.topic == topic]:
            self.outbox.remove((due, message))
            self._last_refused += 1
            self._refused[self._last_refused] = {
                "id": self._last_refused,
                "topic": topic,
                "key": message.key,
                "value": message.value,
                "headers": dump_headers(message.headers),
                "event_id": message.id,
                "tenant_id": message.tenant_id,
                "job_id": message.job_id,
                "run": message.run,
                "error": error,
                "due_at": due,
                "refused_at": self.clock(),
            }

    async def idle(self, key: Key | None = None) -> bool:
        """Whether nothing is open and no event is due soon; with a key, of this job."""
        soon = self.clock() + timedelta(seconds=5)
        open_ones = {job.key for job in self.all_jobs() if not job.ended}
        open_ones |= {(e.tenant_id, e.job_id) for e in self.enrichments.values() if not e.ended}
        due = {(m.tenant_id, m.job_id) for at, m in self.outbox if at < soon}
        return key not in open_ones | due if key is not None else not open_ones | due

    async def count_refused(self) -> dict[str, int]:
        """How many rows are set aside, by topic."""
        return dict(Counter(row["topic"] for row in self._refused.values()))

    async def refused(self, limit: int, ids: Sequence[int] | None = None) -> list[Any]:
        """The newest of them, or those of them that have these ids."""
        return [dict(row) for id, row in reversed(self._refused.items()) if ids is None or id in ids][:limit]

    async def settle_refused(self, plans: Sequence[tuple[int, Message | None]]) -> set[int]:
        """Drop each of these rows and publish the message beside its id; the ids of those that still existed."""
        dropped = {id for id, _ in plans if self._refused.pop(id, None) is not None}
        self.outbox += [(self.clock(), message) for id, message in plans if message is not None and id in dropped]
        return dropped
