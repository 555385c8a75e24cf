"""Which outbox rows are kept apart, and until when: rows that Kafka may refuse, and topics that take nothing.

What is wrong with one row, or one topic, must not hold up the rest of the stream. Rows that were refused together are
halved until the one that is to blame stands alone. Where later rows of the same key would overtake them, those wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.runtime.outbox.publisher import Refusal

#: How often a row that stands alone is tried before it counts as refused, unless it is final at once. Meanwhile a limit
#: of its topic may be raised (`topic_layout.TopicRepair`).
TRIES = 5

#: Seconds until the first other try, doubled with each, and the longest.
FIRST_S, LONGEST_S = 0.5, 30.0

#: Seconds after which a row is given up for an error that may be about anything, although nothing else was published on
#: its topic meanwhile.
ALONE_S = 600.0


#: Rows under suspicion at most, about. With more of them, what is wrong is with their topics, whose other rows wait.
SUSPECTS = 500


@dataclass(frozen=True, slots=True)
class Suspect:
    """What is kept of a row while it waits, not its value: there may be many."""

    id: int
    topic: str
    key: bytes | None


@dataclass(slots=True, eq=False)
class Group:
    """Rows that are published by themselves, because one of them may be what Kafka refuses."""

    rows: tuple[Suspect, ...]
    error: str
    since: float
    tries: int = 0
    due: float = 0.0

    @property
    def ids(self) -> list[int]:
        """The rows' ids."""
        return [row.id for row in self.rows]

    @property
    def keys(self) -> set[bytes]:
        """What the rows are keyed by."""
        return {row.key for row in self.rows if row.key is not None}


@dataclass(slots=True)
class Parked:
    """A topic that takes nothing."""

    topic: str
    error: str
    tries: int = 0
    due: float = 0.0


@dataclass
class Quarantine:
    """What one shard keeps apart. Times are seconds of any clock that only goes forward."""

    first_s: float = FIRST_S
    alone_s: float = ALONE_S
    _groups: deque[Group] = field(default_factory=deque)
    _parked: dict[str, Parked] = field(default_factory=dict)
    #: When something was last published, by topic.
    _published: dict[str, float] = field(default_factory=dict)

    @property
    def topics(self) -> list[str]:
        """Topics whose rows wait."""
        crowded = sum(len(group.rows) for group in self._groups) > SUSPECTS
        suspected = {row.topic for group in self._groups for row in group.rows} if crowded else set()
        return list(suspected | self._parked.keys())

    @property
    def ids(self) -> list[int]:
        """Rows that wait for their group's turn."""
        return [id for group in self._groups for id in group.ids]

    @property
    def keys(self) -> list[bytes]:
        """Keys whose later rows must not overtake those."""
        return list(set().union(*(group.keys for group in self._groups)))

    @property
    def troubles(self) -> dict[str, str]:
        """What to tell people, by topic."""
        told = {row.topic: group.error for group in reversed(self._groups) for row in group.rows}
        return told | {topic: parked.error for topic, parked in self._parked.items()}

    def due(self, now: float) -> Group | Parked | None:
        """What is to be tried by itself now. A group does not overtake another one with the same key."""
        before: set[bytes] = set()
        for group in self._groups:
            if group.due <= now and not group.keys & before:
                return group
            before |= group.keys
        return next((parked for parked in self._parked.values() if parked.due <= now), None)

    def wait_s(self, now: float) -> float | None:
        """Seconds until something more is due; None if nothing is kept apart."""
        moments = [group.due for group in self._groups] + [parked.due for parked in self._parked.values()]
        return min((due - now for due in moments if due > now), default=None)

    def published(self, what: Group | Parked | None, rows: Iterable[Any], now: float) -> None:
        """These rows were published."""
        self._published |= {row["topic"]: now for row in rows}
        self.forget(what)

    def forget(self, what: Group | Parked | None) -> None:
        """There is no reason, or no row, any more."""
        if isinstance(what, Group):
            self._groups.remove(what)
        elif isinstance(what, Parked):
            self._parked.pop(what.topic, None)

    def park(self, what: Group | Parked | None, topics: Mapping[str, str], now: float) -> None:
        """These topics take nothing: so it was found when `what` was tried."""
        if isinstance(what, Group):
            self.forget(what)
        for topic, error in topics.items():
            parked = self._parked.setdefault(topic, Parked(topic, error))
            parked.error = error
            parked.due = now + self._backoff_s(parked.tries)
            parked.tries += 1

    def suspect(
        self, what: Group | Parked | None, rows: Sequence[Any], refusals: Mapping[int, Refusal], now: float
    ) -> tuple[Any, Refusal] | None:
        """Some of these rows, which were published as `what`, were refused. A row that is to be set aside, if it is
        clear that it is this one; the rest is tried again.
        """
        blamed = [row for row in rows if row["id"] in refusals]
        refusal = refusals[blamed[0]["id"]]
        suspects = tuple(Suspect(row["id"], row["topic"], row["key"]) for row in blamed)
        earlier = what if isinstance(what, Group) else None
        self.forget(what)
        if len(suspects) > 1:
            self._halve(suspects, refusal.error, earlier.since if earlier else now)
            return None
        group = Group(suspects, refusal.error, earlier.since if earlier else now)
        group.tries = earlier.tries + 1 if earlier and len(earlier.rows) == 1 else 1
        group.due = now + self._backoff_s(group.tries - 1)
        if refusal.final or (group.tries >= TRIES and (refusal.clear or self._proven(group, now))):
            return blamed[0], refusal
        self._groups.appendleft(group)
        return None

    def _halve(self, rows: tuple[Suspect, ...], error: str, since: float) -> None:
        middle = len(rows) // 2
        self._groups.extendleft(Group(half, error, since) for half in (rows[middle:], rows[:middle]))

    def _proven(self, group: Group, now: float) -> bool:
        """Whether others were published on its topic meanwhile, or none for so long that it makes no difference."""
        others = self._published.get(group.rows[0].topic, -1.0) >= group.since
        return others or now - group.since >= self.alone_s

    def _backoff_s(self, tries: int) -> float:
        return min(self.first_s * 2.0 ** min(tries, 20), LONGEST_S)
