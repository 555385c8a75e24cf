"""A provider's list of its requests, read as a whole, once for all who look for theirs at the same time.

Whether a request is in the list decides whether it is made, and paid for, a second time. But a list is no snapshot: it
is read page by page while it grows and shrinks, and what is missing on one page may only have moved to another. So
absence counts only after two readings that agree with each other about everything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agents.asr.protocols import Listed
from schemas.errors import InDoubt, Transient

#: Seconds that one reading may take; whoever looks waits for it no longer than it likes, and finds it done later.
READING_S: Final = 180.0

#: Seconds between the two readings of a proof: what a page leaves out while the list moves, it has again by then.
APART_S: Final = 3.0

#: How far the provider's clock may be from ours.
SKEW: Final = timedelta(minutes=10)


#: Reads everything that was created since a time, or more. Raises `Transient`, `ProviderError`.
Read = Callable[[datetime], Awaitable[Sequence[Listed]]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read: one list, or two for whoever needs proof."""

    begun: float
    since: datetime
    lists: tuple[dict[str, Listed], ...]


class RequestList:
    """`lag` is how long the provider may take to list what it has accepted."""

    def __init__(self, name: str, read: Read, *, lag: timedelta, reading_s: float = READING_S) -> None:
        self._name, self._read, self._lag, self._reading_s = name, read, lag, reading_s
        #: Seconds; a test's own clock, if it has one.
        self.clock: Callable[[], float] = time.monotonic
        self.apart_s = APART_S
        self._newest: _Reading | None = None
        self._task: asyncio.Task[None] | None = None

    async def find(
        self, matches: Callable[[Listed], bool], since: datetime, *, within_s: float, proof: bool
    ) -> str | None:
        """See `RemoteRecognizer.find`; `since` is a time at which nobody had made the request yet."""
        reading = await self._current(since - SKEW, within_s, proof=proof)
        for listed in reading.lists:
            for item in listed.values():
                if matches(item):
                    return item.id
        if proof:
            self._check(reading, since - SKEW)
        return None

    async def all(self, since: datetime) -> list[Listed]:
        """See `RemoteRecognizer.listed`: what either of two readings had."""
        first, second = (await self._current(since - SKEW, 0.0, proof=True)).lists
        return list((first | second).values())

    async def close(self) -> None:
        """Stop reading. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _current(self, since: datetime, within_s: float, *, proof: bool) -> _Reading:
        earliest = self.clock() - within_s
        while (reading := self._good(earliest, since, proof=proof)) is None:
            await self._next(since, proof=proof)
        return reading

    def _good(self, earliest: float, since: datetime, *, proof: bool) -> _Reading | None:
        newest = self._newest
        if newest is None or newest.begun < earliest or newest.since > since or (proof and len(newest.lists) < 2):
            return None
        return newest

    async def _next(self, since: datetime, *, proof: bool) -> None:
        """Wait until a reading is done; it goes on when whoever waits gives up."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._reading(since, 2 if proof else 1))
            self._task.add_done_callback(_seen)
        await asyncio.shield(self._task)

    async def _reading(self, since: datetime, times: int) -> None:
        begun = self.clock()
        try:
            async with asyncio.timeout(self._reading_s):
                lists = [await self._items(since)]
                while len(lists) < times:
                    await asyncio.sleep(self.apart_s)
                    lists.append(await self._items(since))
        except TimeoutError as exc:
            raise Transient(f"{self._name}: reading the list of requests takes too long") from exc
        self._newest = _Reading(begun, since, tuple(lists))

    async def _items(self, since: datetime) -> dict[str, Listed]:
        return {item.id: item for item in await self._read(since)}

    def _check(self, reading: _Reading, since: datetime) -> None:
        """Raise unless the list proves that what is not in it is not there."""
        first, second = ({id for id, item in found.items() if not is_older(item, since)} for found in reading.lists)
        items = {id: item for found in reading.lists for id, item in found.items() if id in first | second}
        if mute := sum(item.urls is None for item in items.values()):
            raise InDoubt(f"{self._name}: {mute} requests in its list do not say what they are about")
        times = [item.created for item in items.values() if item.created is not None]
        edge = max(times) - self._lag if times else None
        moved = [id for id in first ^ second if not _newer(items[id], edge)]
        if moved:
            raise Transient(f"{self._name}: its list of requests leaves some out ({len(moved)} were there only once)")


def is_older(item: Listed, time: datetime) -> bool:
    """Whether it is known to have been created before that time."""
    return item.created is not None and item.created < time


def _newer(item: Listed, time: datetime | None) -> bool:
    return item.created is not None and time is not None and item.created > time


def _seen(task: asyncio.Task[None]) -> None:
    """Its error was told to whoever waited, perhaps to nobody: it must not be reported as lost."""
    if not task.cancelled():
        task.exception()
