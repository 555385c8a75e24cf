"""Delivers the newer statuses of all of a tenant's jobs to open event streams: one feed a tenant, however many streams.

A feed asks PostgreSQL what has changed, at intervals and when this worker's table takes a status of the tenant; other
workers' tables have the others. Changes become visible in the order of commits, not of their times, so that each
question goes back some seconds behind the last, by the database's clock, and versions tell what is new.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from schemas.errors import Unavailable
from schemas.jobs.status import status_version
from web.live.status_feed import HEARTBEAT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from schemas.events.job import JobStatus
    from schemas.jobs.status import StatusVersion
    from sinks.ports.reading.changes import Change, Changes

log = logging.getLogger(__name__)

#: How far back each question goes: as long as a statement of a step may take, after which it is not committed.
OVERLAP: Final = timedelta(seconds=15)

#: Seconds between two questions at most, and at least.
INTERVAL_S, SHORTEST_S = 0.5, 0.05

#: Changes of one question, and statuses that are read at once.
MANY: Final = 5000
SLICE: Final = 200

#: Statuses that a stream may be behind. Its client has to read faster, or connect again.
BEHIND: Final = 5000

#: How far back a stream can be resumed.
LONGEST: Final = timedelta(hours=1)


class TenantFeed:
    """The newer statuses of one tenant's jobs, for its subscribers in this worker."""

    def __init__(self, tenant: str, changes: Changes, since: datetime, found: Iterable[Change]) -> None:
        self._tenant, self._changes, self._since = tenant, changes, since
        #: By job: the version that was delivered, or was there before, and its time.
        self._delivered: dict[str, tuple[StatusVersion, datetime]] = {
            change.job_id: (change.version, change.at) for change in found
        }
        self._ask_now = asyncio.Event()
        self.queues: set[asyncio.Queue[JobStatus | None]] = set()
        self._polling = asyncio.create_task(self._poll())

    def wake(self) -> None:
        """There may be something new: ask without waiting for the next interval."""
        self._ask_now.set()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, because it was closed or has failed."""
        return self._polling.done()

    def close(self) -> None:
        """End all subscriptions."""
        self._polling.cancel()
        for queue in self.queues:
            _end(queue)

    async def _poll(self) -> None:
        while True:
            try:
                for status in await self._newer():
                    for queue in self.queues:
                        _deliver(queue, status)
            except Unavailable as exc:
                log.debug("what is new of a tenant's jobs is not known: %s", exc)
            except Exception:
                log.exception("what is new of a tenant's jobs cannot be told; its streams end, and begin anew")
                for queue in self.queues:
                    _end(queue)
                return
            await asyncio.sleep(SHORTEST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S - SHORTEST_S):
                    await self._ask_now.wait()
            self._ask_now.clear()

    async def _newer(self) -> list[JobStatus]:
        since = await self._changes.changes(self._tenant, self._since, MANY)
        ids = [change.job_id for change in since.found if self._is_new(change)]
        newer = await _statuses(self._changes, self._tenant, ids)
        for status in newer:
            self._delivered[status.job_id] = (status_version(status), status.updated_at)
        # With as many as are asked for, there may be more behind them; else nothing is left out.
        end = since.found[-1].at if len(since.found) == MANY else since.at - OVERLAP
        if end > self._since:
            self._since = end
            self._delivered = {id: seen for id, seen in self._delivered.items() if seen[1] >= end}
        return newer

    def _is_new(self, change: Change) -> bool:
        seen = self._delivered.get(change.job_id)
        return seen is None or seen[0] < change.version


def _deliver(queue: asyncio.Queue[JobStatus | None], status: JobStatus) -> None:
    with contextlib.suppress(asyncio.QueueFull):  # then it has been ended already
        queue.put_nowait(status)
        if queue.qsize() >= BEHIND:
            _end(queue)


def _end(queue: asyncio.Queue[JobStatus | None]) -> None:
    """None is the last that the stream reads, behind what it has not read yet."""
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(None)


class TenantFeeds:
    """The feeds of a worker, by tenant. All of it in one event loop."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._feeds: dict[str, TenantFeed] = {}
        self._is_closed = False

    def wake(self, status: JobStatus) -> None:
        """This worker's table has taken a status. Never waits."""
        if (feed := self._feeds.get(status.tenant_id)) is not None:
            feed.wake()

    def close(self) -> None:
        """End every subscription: the worker stops, and clients connect to another."""
        self._is_closed = True
        for feed in self._feeds.values():
            feed.close()

    async def missed(self, tenant: str, since: datetime) -> list[JobStatus] | None:
        """What a stream that has all up to `since` may have missed; None if that is more than can be told.

        Raises:
            Unavailable: the database cannot be reached.
        """
        if since < await self._changes.now() - LONGEST:
            return None
        found = (await self._changes.changes(tenant, since - OVERLAP, MANY)).found
        if len(found) == MANY:
            return None
        return await _statuses(self._changes, tenant, [change.job_id for change in found])

    @contextlib.asynccontextmanager
    async def subscribe(self, tenant: str, now: datetime) -> AsyncIterator[AsyncIterator[JobStatus | None]]:
        """The tenant's statuses from now on, for as long as the context lasts; None when there was none for
        `status_feed.HEARTBEAT_S` seconds. They end when the worker stops, or when the reader is too far behind.

        Raises:
            Unavailable: the worker stops, or the database cannot be reached.
        """
        if not self._is_alive(tenant):
            since = now - OVERLAP
            found = (await self._changes.changes(tenant, since, MANY)).found
            if not self._is_alive(tenant) and not self._is_closed:
                self._feeds[tenant] = TenantFeed(tenant, self._changes, since, found)
        if self._is_closed:
            raise Unavailable("this worker stops")
        feed = self._feeds[tenant]
        queue: asyncio.Queue[JobStatus | None] = asyncio.Queue(BEHIND + 1)
        feed.queues.add(queue)
        try:
            yield _read(queue)
        finally:
            feed.queues.discard(queue)
            if not feed.queues:
                feed.close()
                if self._feeds.get(tenant) is feed:
                    del self._feeds[tenant]

    def _is_alive(self, tenant: str) -> bool:
        feed = self._feeds.get(tenant)
        return feed is not None and not feed.is_over


async def _statuses(changes: Changes, tenant: str, ids: Sequence[str]) -> list[JobStatus]:
    """The statuses of jobs, of `SLICE` at once: other questions have a turn between them."""
    statuses: list[JobStatus] = []
    for first in range(0, len(ids), SLICE):
        statuses += await changes.statuses(tenant, ids[first : first + SLICE])
    return statuses


async def _next(queue: asyncio.Queue[JobStatus | None]) -> JobStatus | None:
    """Raises TimeoutError: there was none for `HEARTBEAT_S` seconds."""
    if not queue.empty():
        return queue.get_nowait()
    async with asyncio.timeout(HEARTBEAT_S):
        return await queue.get()


async def _read(queue: asyncio.Queue[JobStatus | None]) -> AsyncIterator[JobStatus | None]:
    while True:
        try:
            status = await _next(queue)
        except TimeoutError:
            yield None
        else:
            if status is None:
                return
            yield status


def moment_of(id: str) -> datetime | None:
    """The time in an event's id, which is in microseconds since 1970; None if it is none."""
    if not (id.isascii() and id.isdigit() and len(id) < 18):
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(id))


def id_of(moment: datetime) -> int:
    """The inverse."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
