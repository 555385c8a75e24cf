"""Which outbox rows are excluded from regular batches, and when they are retried: suspect rows, and parked topics.

One refused row, or one topic that accepts nothing, must not hold up the rest of the stream. Rows that were refused
together are split in halves until the row that causes the refusal is alone. Later rows with the same key wait for them,
so that records of one key keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.runtime.outbox.publisher import Refusal

#: How often a row that is alone in its batch is tried before it counts as refused, unless its refusal is final.
#: Meanwhile a limit of its topic may be raised (`topic_layout.TopicRepair`).
TRIES = 5

#: Seconds until the first retry, doubled with each, and the longest.
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0

#: Seconds after which a row is given up for an error that need not be about a record, although no other row was
#: published on its topic meanwhile.
UNPROVEN_S = 600.0

#: Above this number of suspect rows, roughly, their topics are the likelier cause: all rows of these topics then wait.
MAX_SUSPECTS = 500


@dataclass(frozen=True, slots=True)
class SuspectRow:
    """The fields of a row that are kept while it waits. Its value is not: there may be many."""

    id: int
    topic: str
    key: bytes | None


@dataclass(slots=True, eq=False)
class SuspectGroup:
    """Rows that are published in a batch of their own, because Kafka may refuse one of them."""

    rows: tuple[SuspectRow, ...]
    error: str
    since: float
    #: How often the group was refused while it had one row.
    tries: int = 0
    due: float = 0.0

    @property
    def ids(self) -> list[int]:
        """The rows' ids."""
        return [row.id for row in self.rows]

    @property
    def keys(self) -> set[bytes]:
        """The rows' keys."""
        return {row.key for row in self.rows if row.key is not None}


@dataclass(slots=True)
class ParkedTopic:
    """A topic that accepts nothing: its rows wait, and a few of them are tried from time to time."""

    topic: str
    error: str
    tries: int = 0
    due: float = 0.0


#: Rows that are published in a batch of their own; None stands for a regular batch.
Retry = SuspectGroup | ParkedTopic


@dataclass
class Quarantine:
    """The suspect rows and parked topics of one shard. Times are seconds of a monotonic clock."""

    min_backoff_s: float = MIN_BACKOFF_S
    unproven_s: float = UNPROVEN_S
    _groups: deque[SuspectGroup] = field(default_factory=deque)
    _parked: dict[str, ParkedTopic] = field(default_factory=dict)
    #: By topic, the time of the last successful batch.
    _published: dict[str, float] = field(default_factory=dict)

    @property
    def topics(self) -> list[str]:
        """Topics whose rows wait."""
        crowded = sum(len(group.rows) for group in self._groups) > MAX_SUSPECTS
        suspected = {row.topic for group in self._groups for row in group.rows} if crowded else set()
        return list(suspected | self._parked.keys())

    @property
    def ids(self) -> list[int]:
        """Rows that wait for the batch of their group."""
        return [id for group in self._groups for id in group.ids]

    @property
    def keys(self) -> list[bytes]:
        """Keys of suspect rows, whose later rows wait as well."""
        return list(set().union(*(group.keys for group in self._groups)))

    @property
    def errors(self) -> dict[str, str]:
        """By topic, the error for which rows wait."""
        suspected = {row.topic: group.error for group in reversed(self._groups) for row in group.rows}
        return suspected | {topic: parked.error for topic, parked in self._parked.items()}

    def due(self, now: float) -> Retry | None:
        """What is to be retried now. A group does not overtake an earlier one with the same key."""
        earlier_keys: set[bytes] = set()
        for group in self._groups:
            if group.due <= now and not group.keys & earlier_keys:
                return group
            earlier_keys |= group.keys
        return next((parked for parked in self._parked.values() if parked.due <= now), None)

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next retry after now; None if there is none."""
        times = [group.due for group in self._groups] + [parked.due for parked in self._parked.values()]
        return min((due - now for due in times if due > now), default=None)

    def published(self, retry: Retry | None, rows: Iterable[Any], now: float) -> None:
        """Note that these rows were published as this retry, or as a regular batch."""
        self._published |= {row["topic"]: now for row in rows}
        self.release(retry)

    def release(self, retry: Retry | None) -> None:
        """Return these rows to regular batches."""
        if isinstance(retry, SuspectGroup):
            self._groups.remove(retry)
        elif isinstance(retry, ParkedTopic):
            self._parked.pop(retry.topic, None)

    def park(self, retry: Retry | None, topics: Mapping[str, str], now: float) -> None:
        """Park topics that accepted nothing in this retry or regular batch; `topics` maps each to its error."""
        if isinstance(retry, SuspectGroup):
            self.release(retry)
        for topic, error in topics.items():
            parked = self._parked.setdefault(topic, ParkedTopic(topic, error))
            parked.error = error
            parked.due = now + self._backoff_s(parked.tries)
            parked.tries += 1

    def suspect(
        self, retry: Retry | None, rows: Sequence[Any], refusals: Mapping[int, Refusal], now: float
    ) -> tuple[Any, Refusal] | None:
        """Quarantine those of a batch's rows that have a refusal, by id.

        Returns:
            The row that is the cause, with its refusal, once that is certain: it is no longer kept here.
        """
        refused = [row for row in rows if row["id"] in refusals]
        refusal = refusals[refused[0]["id"]]
        suspects = tuple(SuspectRow(row["id"], row["topic"], row["key"]) for row in refused)
        since, tries = (retry.since, retry.tries) if isinstance(retry, SuspectGroup) else (now, 0)
        self.release(retry)
        if len(suspects) > 1:
            self._halve(suspects, refusal.error, since)
            return None
        group = SuspectGroup(suspects, refusal.error, since, tries + 1, due=now + self._backoff_s(tries))
        if self._is_certain(group, refusal, now):
            return refused[0], refusal
        self._groups.appendleft(group)
        return None

    def _halve(self, rows: tuple[SuspectRow, ...], error: str, since: float) -> None:
        middle = len(rows) // 2
        self._groups.extendleft(SuspectGroup(half, error, since) for half in (rows[middle:], rows[:middle]))

    def _is_certain(self, group: SuspectGroup, refusal: Refusal, now: float) -> bool:
        """Whether the only row of this group is the cause of the refusal."""
        return refusal.final or (group.tries >= TRIES and (refusal.clear or self._is_proven(group, now)))

    def _is_proven(self, group: SuspectGroup, now: float) -> bool:
        """Whether other rows were published on the row's topic meanwhile, or none for `unproven_s`."""
        others_published = self._published.get(group.rows[0].topic, -1.0) >= group.since
        return others_published or now - group.since >= self.unproven_s

    def _backoff_s(self, tries: int) -> float:
        return min(self.min_backoff_s * 2.0 ** min(tries, 20), MAX_BACKOFF_S)
