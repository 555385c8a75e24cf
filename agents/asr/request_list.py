"""Reads a provider's list of requests completely, once for all concurrent searches.

If a request is not in the list, it is made, and paid for, a second time. But the list is not a snapshot: it changes
while its pages are read, and a request that is missing on one page may have moved to another. Therefore absence counts
only after two readings that agree about all other requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agents.asr.protocols import Listed
from schemas.errors import InDoubt, Transient

#: Seconds that one reading may take. A caller with a shorter timeout finds the reading completed when it tries again.
READING_S: Final = 180.0

#: Seconds between the two readings of a proof, in which changes that affect the first one are completed.
APART_S: Final = 3.0

#: The largest difference between the provider's clock and ours.
SKEW: Final = timedelta(minutes=10)


#: Reads all requests that were created since a time, and perhaps more. Raises `Transient` or `ProviderError`.
Read = Callable[[datetime], Awaitable[Sequence[Listed]]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The result of reading the list once, or twice for a proof."""

    #: When reading began, by `RequestList.clock`.
    begun: float
    since: datetime
    #: By id.
    lists: tuple[dict[str, Listed], ...]


class RequestList:
    """Searches one provider's list of requests."""

    def __init__(self, name: str, read: Read, *, lag: timedelta, reading_s: float = READING_S) -> None:
        """`name` begins error texts; `lag` is the time after which the provider lists a request that it accepted."""
        self._name, self._read, self._lag, self._reading_s = name, read, lag, reading_s
        #: Seconds; replaced in tests.
        self.clock: Callable[[], float] = time.monotonic
        self.apart_s = APART_S
        self._newest: _Reading | None = None
        self._task: asyncio.Task[None] | None = None

    async def find(
        self, matches: Callable[[Listed], bool], since: datetime, *, within_s: float, proof: bool
    ) -> str | None:
        """The id of the first request that matches, or None; see `RemoteRecognizer.find`.

        The request was made after `since`.

        Raises:
            InDoubt: With `proof`: the list does not say enough about some of its requests.
            Transient: The list cannot be read now, or two readings do not agree.
            ProviderError: The provider refuses to list its requests.
        """
        reading = await self._current(since - SKEW, within_s, proof=proof)
        for listed in reading.lists:
            for item in listed.values():
                if matches(item):
                    return item.id
        if proof:
            self._check(reading, since - SKEW)
        return None

    async def all(self, since: datetime) -> list[Listed]:
        """The requests of two readings together; see `RemoteRecognizer.listed`. Raises as `find` does."""
        first, second = (await self._current(since - SKEW, 0.0, proof=True)).lists
        return list((first | second).values())

    async def close(self) -> None:
        """Cancel a reading in progress. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _current(self, since: datetime, within_s: float, *, proof: bool) -> _Reading:
        earliest = self.clock() - within_s
        while (reading := self._usable(earliest, since, proof=proof)) is None:
            await self._next(since, proof=proof)
        return reading

    def _usable(self, earliest: float, since: datetime, *, proof: bool) -> _Reading | None:
        """The newest reading, if it is recent and complete enough."""
        newest = self._newest
        if newest is None or newest.begun < earliest or newest.since > since or (proof and len(newest.lists) < 2):
            return None
        return newest

    async def _next(self, since: datetime, *, proof: bool) -> None:
        """Wait for the reading in progress, or start one. It continues if the caller is cancelled."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read_times(since, 2 if proof else 1))
            self._task.add_done_callback(_retrieve_exception)
        await asyncio.shield(self._task)

    async def _read_times(self, since: datetime, times: int) -> None:
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
        """Raise unless the reading proves that a request that is not in it was not made."""
        first, second = (_recent_ids(items, since) for items in reading.lists)
        requests = {id: item for items in reading.lists for id, item in items.items() if id in first | second}
        if unknown := sum(item.urls is None for item in requests.values()):
            raise InDoubt(f"{self._name}: {unknown} requests in its list do not say what they are about")
        settled = self._settled(requests.values())
        moved = [id for id in first ^ second if not _is_newer(requests[id], settled)]
        if moved:
            raise Transient(f"{self._name}: its list of requests leaves some out ({len(moved)} were there only once)")

    def _settled(self, requests: Iterable[Listed]) -> datetime | None:
        """The time until which the provider has listed all requests; None if none of these has a time."""
        times = [item.created for item in requests if item.created is not None]
        return max(times) - self._lag if times else None


def _recent_ids(items: Mapping[str, Listed], since: datetime) -> set[str]:
    """The ids of the requests that may have been created since then."""
    return {id for id, item in items.items() if not is_older(item, since)}


def is_older(item: Listed, time: datetime) -> bool:
    """Whether the request was certainly created before that time."""
    return item.created is not None and item.created < time


def _is_newer(item: Listed, time: datetime | None) -> bool:
    return item.created is not None and time is not None and item.created > time


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Keeps asyncio from logging an error as never retrieved if every caller was cancelled before it."""
    if not task.cancelled():
        task.exception()
