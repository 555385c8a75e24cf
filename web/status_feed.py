"""From whoever learns of newer statuses to whoever watches a job: one feed a job, however many watch it.

A feed asks PostgreSQL whether there is something newer, at intervals and whenever this worker's table has taken a
status. So watchers cost no question each, and see what was committed in whatever order events arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from schemas.errors import NotFound, Unavailable
from schemas.jobs.rows import TERMINAL
from schemas.jobs.status import status_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from schemas.events.job import JobStatus
    from schemas.ids import Key
    from schemas.jobs.status import StatusVersion
    from web.status import Answer

    #: Looks for a status of the job that is newer than the one that stands so.
    Look = Callable[[Key, StatusVersion], Awaitable[Answer | None]]

#: Seconds of silence after which a watcher, and every proxy before it, is shown that the connection lives.
BEAT_S = 15.0

#: Seconds between looks at a job whose row is in the table here, which says at once when there is something newer.
_TOLD_LOOK_S: Final = 2.0

#: The same for other jobs: at least, and how many jobs are looked at in a second at most.
_LOOK_S, _LOOKS = 0.25, 1000


class Feed:
    """The newest status of one job, for those who watch it here."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._newest: Answer | None = None
        self._moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hinted = asyncio.Event()
        self._hinted.set()  # something may have come since the first answer was looked up
        self._looking: asyncio.Task[None] | None = None
        self._is_gone = False
        self.is_closed = False
        self.watchers = 0

    def offer(self, answer: Answer) -> None:
        """Show this to all, if it is newer than what they have."""
        if self._newest is None or status_version(answer.status) > status_version(self._newest.status):
            self._newest = answer
            self._wake()

    def hint(self) -> None:
        """There may be something newer."""
        self._hinted.set()

    def close(self) -> None:
        """Nothing more will come: this worker stops, or nobody watches any more."""
        self.is_closed = True
        if self._looking is not None:
            self._looking.cancel()
        self._wake()

    def _wake(self) -> None:
        self._moved.set_result(None)
        self._moved = asyncio.get_running_loop().create_future()

    async def statuses(self, first: Answer, after: int | None = None) -> AsyncIterator[JobStatus | None]:
        """`first` and every newer status until the run has ended; None when there was none for `BEAT_S` seconds.

        `after` is the version that the watcher has seen already. Raises `NotFound` when the job is deleted meanwhile.
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
        give_up = asyncio.get_running_loop().time() + BEAT_S
        while (left_s := give_up - asyncio.get_running_loop().time()) > 0:
            if self._newest is not None and status_version(self._newest.status) > status_version(shown):
                return self._newest.status
            if self._is_gone:
                raise NotFound("the job is deleted")
            if self.is_closed or self._looking is None:
                return None
            await asyncio.wait([self._moved, self._looking], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if self._looking.done() and not self._looking.cancelled():
                self._looking.result()  # raises what ended it
        return None

    def begin(self, look: Look, interval_s: Callable[[Answer], float]) -> None:
        """Look for newer statuses, unless that is being done or the run has ended."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on(look, interval_s))

    async def _look_on(self, look: Look, interval_s: Callable[[Answer], float]) -> None:
        while self._newest is not None and self._newest.status.status not in TERMINAL:
            await self._pause(interval_s(self._newest))
            try:
                answer = await look(self._key, status_version(self._newest.status))
            except NotFound:
                self._is_gone = True
                self._wake()
                return
            except Unavailable:
                continue
            if answer is not None:
                self.offer(answer)

    async def _pause(self, interval_s: float) -> None:
        """Until a hint comes, or the job's next moment: a tenth of a second that it shares with a part of the others,
        so that their questions are one and not all are asked at once.
        """
        tenths = max(round(interval_s * 10), 1)
        moment_s = hash(self._key) % tenths / 10 - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(moment_s % interval_s or interval_s):
                await self._hinted.wait()
        self._hinted.clear()


class StatusFeeds:
    """The feeds of a worker, by job. All of it in one event loop."""

    def __init__(self, *, told: bool = True) -> None:
        #: Whether `publish` is called for what the table here takes.
        self._told = told
        self._feeds: dict[Key, Feed] = {}
        self._is_closed = False

    def publish(self, status: JobStatus) -> None:
        """This worker's table has taken a status. Never waits."""
        feed = self._feeds.get((status.tenant_id, status.job_id))
        if feed is not None:
            feed.hint()

    @contextlib.contextmanager
    def following(self, first: Answer, look: Look) -> Iterator[Feed]:
        """The feed of a job that stands like this, for as long as the context lasts."""
        if self._is_closed:
            raise Unavailable("this worker stops")
        key = first.status.tenant_id, first.status.job_id
        feed = self._feeds.setdefault(key, Feed(key))
        feed.watchers += 1
        feed.offer(first)
        feed.begin(look, self._interval_s)
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                feed.close()
                self._feeds.pop(key, None)

    def _interval_s(self, last: Answer) -> float:
        if last.source == "table" and self._told:
            return _TOLD_LOOK_S
        return min(max(len(self._feeds) / _LOOKS, _LOOK_S), _TOLD_LOOK_S)

    def close(self) -> None:
        """End every watch: the worker stops, and watchers find another."""
        self._is_closed = True
        for feed in self._feeds.values():
            feed.close()
