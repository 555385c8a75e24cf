"""From whoever learns of newer statuses to whoever watches a job: publish and subscribe inside one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from schemas.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from schemas.events import JobStatus
    from schemas.ids import Key
    from web.status import Answer, Source

from web.status import standing

#: Statuses that wait for one slow watcher; when there are more, the oldest are left out.
WAITING: Final = 64

#: Seconds of silence after which a watcher, and every proxy before it, is shown that the connection lives.
BEAT_S = 15.0

#: Seconds without news after which a watcher looks for itself. Only a table here can tell at once, if it publishes.
_LOOK_S: Final[dict[Source, float]] = {"table": 0.15, "owner": 0.2, "database": 1.0}
_PUBLISHED_LOOK_S: Final = 2.0


@dataclass(eq=False)
class News:
    """Newer statuses of one job, for one watcher."""

    _waiting: deque[JobStatus] = field(default_factory=lambda: deque(maxlen=WAITING))
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    #: No more will come: this worker stops.
    closed: bool = False

    def put(self, status: JobStatus) -> None:
        """One more; with too many waiting, the oldest goes."""
        self._waiting.append(status)
        self._arrived.set()

    def close(self) -> None:
        """Say that no more will come."""
        self.closed = True
        self._arrived.set()

    async def next(self, wait_s: float) -> JobStatus | None:
        """The next one, or None when none comes within `wait_s` seconds, or ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._arrived.wait()
        status = self._waiting.popleft() if self._waiting else None
        if not self._waiting and not self.closed:
            self._arrived.clear()
        return status


class Changes:
    """`publish` every newer status here; watchers of its job get it at once. All of it in one event loop."""

    def __init__(self) -> None:
        self._news: defaultdict[Key, set[News]] = defaultdict(set)
        self._closed = False

    def publish(self, status: JobStatus) -> None:
        """A status that this worker's table has just taken. Never waits."""
        for news in self._news.get((status.tenant_id, status.job_id), ()):
            news.put(status)

    @contextlib.contextmanager
    def following(self, key: Key) -> Iterator[News]:
        """News of one job, for as long as the context lasts."""
        if self._closed:
            raise Unavailable("this worker stops")
        news = News()
        self._news[key].add(news)
        try:
            yield news
        finally:
            self._news[key].discard(news)
            if not self._news[key]:
                del self._news[key]

    def close(self) -> None:
        """End every watch: the worker stops, and watchers find another."""
        self._closed = True
        for news in [news for watchers in self._news.values() for news in watchers]:
            news.close()


@dataclass(frozen=True)
class Watch:
    """One watcher's view of one job."""

    #: Looks the status up, wherever it is.
    ask: Callable[[], Awaitable[Answer]]
    news: News
    #: Whether this worker's table publishes what it learns; else it is looked at often.
    published: bool

    async def statuses(self, first: Answer, after: int | None = None) -> AsyncIterator[JobStatus | None]:
        """Every newer status until the run has ended; None when nothing was said for `BEAT_S` seconds.

        `after` is the version the watcher has seen already. Raises `NotFound` when the job is deleted meanwhile.
        """
        answer, loop = first, asyncio.get_running_loop()
        shown, said_at = standing(first.status), loop.time()
        if first.status.version != after:
            yield first.status
        while not (answer.status.status in ("completed", "failed") or self.news.closed):
            answer = await self._next(answer)
            if standing(answer.status) > shown:
                shown, said_at = standing(answer.status), loop.time()
                yield answer.status
            elif loop.time() - said_at >= BEAT_S:
                said_at = loop.time()
                yield None

    async def _next(self, last: Answer) -> Answer:
        """What is published, or after a while of silence what is found; the last one again if nobody can say."""
        table = last.source == "table"
        wait_s = _PUBLISHED_LOOK_S if table and self.published else _LOOK_S[last.source]
        status = await self.news.next(min(wait_s, BEAT_S))
        if status is not None:
            return type(last)(status, "table")
        if self.news.closed:
            return last
        try:
            return await self.ask()
        except Unavailable:
            return last
