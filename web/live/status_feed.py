"""Delivers newer statuses of jobs to open event streams: one feed a job, however many streams subscribe to it.

A feed queries PostgreSQL for a newer status at intervals, and whenever this worker's table takes one. So subscribers
cost no query each, and see what was committed in whatever order events arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from schemas.errors import NotFound, Unavailable
from schemas.jobs.rows import TERMINAL
from schemas.jobs.status import status_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from schemas.events.job import JobStatus
    from schemas.ids import Key
    from schemas.jobs.status import StatusVersion
    from web.live.statuses import CurrentStatus

    #: Reads a job's status if its version is not this one any more, else None.
    ReadNewer = Callable[[Key, StatusVersion], Awaitable[CurrentStatus | None]]

#: Seconds without a status after which a client, and every proxy before it, is shown that the connection lives.
HEARTBEAT_S = 15.0

#: Seconds between queries for a job whose row is in the table here: `publish` is called when there is a newer one.
_PUBLISHED_INTERVAL_S: Final = 2.0

#: The same for other jobs: at least, and how many jobs are queried in a second at most.
_INTERVAL_S, _QUERIES_PER_S = 0.25, 1000


class StatusFeed:
    """The newest status of one job, for its subscribers in this worker."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._newest: CurrentStatus | None = None
        #: Of each subscriber that waits: whether what wakes it is the heartbeat.
        self._waiting: list[asyncio.Future[bool]] = []
        self._heartbeat: asyncio.TimerHandle | None = None
        self._query_now = asyncio.Event()
        self._query_now.set()  # something may have come since the first status was read
        self._polling: asyncio.Task[None] | None = None
        self._is_deleted = False
        self.is_closed = False
        self.subscribers = 0

    def offer(self, current: CurrentStatus) -> None:
        """Deliver this status, if it is newer than the last one."""
        if self._newest is None or status_version(current.status) > status_version(self._newest.status):
            self._newest = current
            self._notify()

    def query_now(self) -> None:
        """There may be a newer status: query without waiting for the next interval."""
        self._query_now.set()

    def close(self) -> None:
        """End all subscriptions: the worker stops, or nobody subscribes any more."""
        self.is_closed = True
        if self._polling is not None:
            self._polling.cancel()
        self._notify()

    def _notify(self, is_heartbeat: bool = False) -> None:
        """Wake all subscribers. One timer is for all: one for each took as long as the waking."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(is_heartbeat)
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    def _woken(self) -> asyncio.Future[bool]:
        """Done when there may be something new, or, with True, when there was nothing for `HEARTBEAT_S` seconds."""
        loop = asyncio.get_running_loop()
        if self._heartbeat is None:
            self._heartbeat = loop.call_later(HEARTBEAT_S, self._notify, True)
        self._waiting.append(waiter := loop.create_future())
        return waiter

    async def statuses(self, first: CurrentStatus, after: int | None = None) -> AsyncIterator[JobStatus | None]:
        """`first` and every newer status until the run has ended; None when there was none for `HEARTBEAT_S` seconds.

        `after` is the version that the client has already; `first` is left out if it is that one.

        Raises:
            NotFound: the job is deleted meanwhile.
        """
        shown = first.status
        if shown.version != after:
            yield shown
        while shown.status not in TERMINAL and not self.is_closed:
            status = await self._newer(shown)
            if status is not None:
                shown = status
            if status is not None or not self.is_closed:
                yield status

    async def _newer(self, shown: JobStatus) -> JobStatus | None:
        is_heartbeat = False
        while not is_heartbeat:
            if self._newest is not None and status_version(self._newest.status) > status_version(shown):
                return self._newest.status
            if self._is_deleted:
                raise NotFound("the job is deleted")
            if self.is_closed or self._polling is None:
                return None
            if self._polling.done() and not self._polling.cancelled():
                self._polling.result()  # raises what ended it
            is_heartbeat = await self._woken()
        return None

    def start(self, read_newer: ReadNewer, interval_s: Callable[[CurrentStatus], float]) -> None:
        """Poll for newer statuses, unless that is being done or the run has ended."""
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(read_newer, interval_s))
            self._polling.add_done_callback(lambda _: self._notify())

    async def _poll(self, read_newer: ReadNewer, interval_s: Callable[[CurrentStatus], float]) -> None:
        while self._newest is not None and self._newest.status.status not in TERMINAL:
            await self._pause(interval_s(self._newest))
            try:
                current = await read_newer(self._key, status_version(self._newest.status))
            except NotFound:
                self._is_deleted = True
                self._notify()
                return
            except Unavailable:
                continue
            if current is not None:
                self.offer(current)

    async def _pause(self, interval_s: float) -> None:
        """Until `query_now` is called, or the job's next moment: a tenth of a second that it shares with a part of the
        other jobs, so that their queries are one and not all are made at once.
        """
        tenths = max(round(interval_s * 10), 1)
        moment_s = hash(self._key) % tenths / 10 - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(moment_s % interval_s or interval_s):
                await self._query_now.wait()
        self._query_now.clear()


class Follower(Protocol):
    """What else is told that this worker's table takes statuses."""

    def wake(self, status: JobStatus) -> None:
        """The table has taken this status. Never waits."""

    def close(self) -> None:
        """The worker stops."""


class StatusFeeds:
    """The feeds of a worker, by job. All of it in one event loop."""

    def __init__(self, *, is_published: bool = True) -> None:
        #: Whether `publish` is called for every status that the table here takes.
        self._is_published = is_published
        self._feeds: dict[Key, StatusFeed] = {}
        self._is_closed = False
        #: Told of every status, and closed with these.
        self.followers: list[Follower] = []

    def publish(self, status: JobStatus) -> None:
        """This worker's table has taken a status. Never waits."""
        feed = self._feeds.get((status.tenant_id, status.job_id))
        if feed is not None:
            feed.query_now()
        for follower in self.followers:
            follower.wake(status)

    @contextlib.contextmanager
    def subscribe(self, first: CurrentStatus, read_newer: ReadNewer) -> Iterator[StatusFeed]:
        """The feed of the job that has this status, for as long as the context lasts.

        Raises:
            Unavailable: the worker stops.
        """
        if self._is_closed:
            raise Unavailable("this worker stops")
        key = first.status.tenant_id, first.status.job_id
        feed = self._feeds.setdefault(key, StatusFeed(key))
        feed.subscribers += 1
        feed.offer(first)
        feed.start(read_newer, self._interval_s)
        try:
            yield feed
        finally:
            feed.subscribers -= 1
            if not feed.subscribers:
                feed.close()
                self._feeds.pop(key, None)

    def _interval_s(self, last: CurrentStatus) -> float:
        if last.source == "table" and self._is_published:
            return _PUBLISHED_INTERVAL_S
        return min(max(len(self._feeds) / _QUERIES_PER_S, _INTERVAL_S), _PUBLISHED_INTERVAL_S)

    def close(self) -> None:
        """End every subscription: the worker stops, and clients connect to another."""
        self._is_closed = True
        for feed in self._feeds.values():
            feed.close()
        for follower in self.followers:
            follower.close()
