"""Background tasks that outlive the handling of their event, each under a lease in PostgreSQL.

A task goes on in this process between two deliveries of its event. If the process dies, its lease runs out and any
worker may start the task again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from schemas.errors import Unavailable
from sinks.ports.leases import Leases

log = logging.getLogger(__name__)

#: Seconds that a lease lasts; it is renewed at a third of that.
LEASE_S = 9.0

#: Seconds for which the result of a task is kept, if no call of `run` fetches it.
KEEP_S = 600.0


T = TypeVar("T")

#: Starts the work, given a function to which it reports its progress, 0 to 1.
Make = Callable[[Callable[[float], None]], Awaitable[Any]]


@dataclass(slots=True)
class _LeasedTask:
    task: asyncio.Task[Any]
    shares: Sequence[str]
    progress: float = 0.0
    done_at: float | None = None


@dataclass
class LeasedTasks:
    """At most `limit` tasks at once in this process, each under the lease of its key."""

    database: Leases
    #: Identifies this process among all workers.
    holder: str
    limit: int = 2
    _tasks: dict[str, _LeasedTask] = field(default_factory=dict)
    _renewing: asyncio.Task[None] | None = None
    #: Set whenever a task ends.
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(
        self, key: str, make: Make, wait_s: float, *, eager: bool = False, shares: Sequence[str] = ()
    ) -> Any | None:
        """The result of the key's task if it ends within `wait_s` seconds; the task is started if it does not run yet.

        None while the task runs, in this process or in another, or waits for a slot: then call again later.

        `eager` starts the task without a lease, and acquires the lease only if the task outlives `wait_s`: for tasks
        that are mostly short.

        `shares` names the tenant or host, say, for which the task runs. A share may hold no more slots than are free
        beside it: one alone has at most half of them, several have less, and there is always one for another share.

        Raises:
            Unavailable: the database cannot be reached for the lease.
            Exception: whatever the task raised, in one call.
        """
        began = time.monotonic()
        running = self._tasks.get(key) or await self._start_in_slot(key, make, wait_s, eager=eager, shares=shares)
        if running is None:
            return None
        await asyncio.wait([running.task], timeout=max(0.0, wait_s - (time.monotonic() - began)))
        if not running.task.done():
            if eager and not await self._acquire(key):
                self._drop(key)
            return None
        self._tasks.pop(key, None)
        if not eager:
            await self._release(key)
        return None if running.task.cancelled() else running.task.result()

    async def _start_in_slot(
        self, key: str, make: Make, wait_s: float, *, eager: bool, shares: Sequence[str]
    ) -> _LeasedTask | None:
        """Start the task once it has a slot and, unless eager, its lease; None if it gets neither in time."""
        if not await self._has_slot(shares, 0 if eager else wait_s) or not (eager or await self._acquire(key)):
            return None
        if (running := self._tasks.get(key)) is not None:  # another call has started it meanwhile
            return running
        if self.full(shares):  # other tasks have started while the lease was acquired
            await self._release(key)
            return None
        return self._start(key, make, shares)

    def progress(self, key: str) -> float | None:
        """The progress of the key's task, 0 to 1; None if it does not run in this process."""
        running = self._tasks.get(key)
        return running.progress if running else None

    @property
    def free(self) -> int:
        """The number of free slots."""
        return max(0, self.limit - sum(running.done_at is None for running in self._tasks.values()))

    @property
    def held(self) -> Counter[str]:
        """By share, the number of slots that it holds."""
        active = (running for running in self._tasks.values() if running.done_at is None)
        return Counter(share for running in active for share in running.shares)

    def full(self, shares: Sequence[str] = ()) -> bool:
        """Whether there is no slot for a task of these shares."""
        free, held = self.free, self.held if shares else Counter[str]()
        return free <= 0 or any(held[share] >= free for share in shares)

    async def _has_slot(self, shares: Sequence[str], wait_s: float) -> bool:
        """Whether there is a slot within so many seconds. A task that waits here starts as soon as another ends, and
        not only when its event is delivered again.
        """
        if not wait_s:
            return not self.full(shares)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self.full(shares):
                    self._freed.clear()
                    await self._freed.wait()
        return not self.full(shares)

    async def _acquire(self, key: str) -> bool:
        """Acquire or renew the key's lease; False if another process holds it."""
        return await self.database.lease(key, self.holder, LEASE_S)

    async def drop(self, key: str) -> None:
        """Cancel the key's task, if it is in this process, and release its lease."""
        if key in self._tasks:
            self._drop(key)
            await self._release(key)

    def _drop(self, key: str) -> None:
        running = self._tasks.pop(key, None)
        if running is not None:
            running.task.cancel()

    def _start(self, key: str, make: Make, shares: Sequence[str]) -> _LeasedTask:
        async def work() -> Any:
            return await make(lambda share: setattr(running, "progress", max(0.0, min(1.0, share))))

        running = _LeasedTask(asyncio.create_task(work(), name=key), shares)
        running.task.add_done_callback(lambda task: self._finished(running, task))
        self._tasks[key] = running
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return running

    def _finished(self, running: _LeasedTask, task: asyncio.Task[Any]) -> None:
        running.done_at = time.monotonic()
        self._freed.set()
        if not task.cancelled():
            task.exception()  # marks it as retrieved: `run` raises it later, and asyncio must not log it as lost

    async def _renew(self) -> None:
        while self._tasks:
            await asyncio.sleep(LEASE_S / 3)
            for key, running in list(self._tasks.items()):
                await self._renew_one(key, running)

    async def _renew_one(self, key: str, running: _LeasedTask) -> None:
        if running.done_at is not None:
            if time.monotonic() - running.done_at > KEEP_S:
                self._tasks.pop(key, None)
            return
        with contextlib.suppress(Unavailable):
            if not await self._acquire(key):
                log.warning("the lease of %s is lost; another worker holds it", key)
                self._drop(key)

    async def _release(self, key: str) -> None:
        with contextlib.suppress(Unavailable):
            await self.database.release(key, self.holder)

    async def close(self) -> None:
        """Cancel all tasks and release their leases, so that other workers can start the tasks at once."""
        if self._renewing is not None:  # first: a renewal would take a released lease again, for `LEASE_S` seconds
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        for key, running in list(self._tasks.items()):
            running.task.cancel()
            await self._release(key)
        await asyncio.gather(*(running.task for running in self._tasks.values()), return_exceptions=True)
        self._tasks.clear()


async def each(items: Iterable[T], do: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Call `do` for all items, `at_once` at a time. The first error cancels the other calls, and is raised."""
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
