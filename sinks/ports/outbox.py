"""The port through which operators and gauges look at events that are not published yet, or that Kafka refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.ids import Key
from schemas.messages import Message


@dataclass(frozen=True, slots=True)
class Overdue:
    """Events of one topic and relay shard that have been due for a while and are not published."""

    shard: int
    topic: str
    rows: int
    #: Seconds for which the oldest of them has been due.
    oldest_s: float
    #: Why, as the shard's relay has written it down; None if it has not.
    error: str | None
    #: Whether the reason lies in this topic or these events, and others are published.
    apart: bool

    def __str__(self) -> str:
        reason = self.error or "no relay says why: does one run, and does it keep up?"
        return f"{self.rows} due for up to {self.oldest_s:.0f} s: {reason}"


class RelayBacklog(Protocol):
    """How far the relays of PostgreSQL's outbox are behind. Shards and reasons are theirs: it has no double."""

    async def overdue(self, seconds: float) -> list[Overdue]:
        """Events that have been due for longer than that, by shard and topic, the oldest first."""

    async def outbox_depth(self) -> list[Any]:
        """Per `shard`: how many rows are `due`, how many are `waiting` for a later time, and for how many seconds the
        oldest due one has been due (`oldest_s`).
        """

    async def highest_shard(self) -> int:
        """The highest shard that has rows, or -1."""


class Outbox(Protocol):
    """Events wait here until the relay publishes them; rows that Kafka refuses for good are set aside."""

    async def idle(self, key: Key | None = None) -> bool:
        """Whether no run and no enrichment is open and no event is due within five seconds; with a key, of this job."""

    async def count_refused(self) -> dict[str, int]:
        """How many rows are set aside because Kafka refuses them, by topic."""

    async def refused(self, limit: int, ids: Sequence[int] | None = None) -> list[Any]:
        """The newest of them, or those of them that have these ids: id, topic, key, value, headers (as `dump_headers`
        makes them), event_id, tenant_id, job_id, run, error, due_at and refused_at, by name.
        """

    async def settle_refused(self, plans: Sequence[tuple[int, Message | None]]) -> set[int]:
        """Drop each of these rows and publish the message beside its id, in one transaction; the ids of those that
        still existed. A message is published only if its row still existed.
        """
