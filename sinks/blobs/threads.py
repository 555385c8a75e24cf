"""Threads for blocking file work, separate from asyncio's, and safe to cancel."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """At most `count` threads, started when needed. Separate, so that a slow disk cannot use up asyncio's."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="sinks")

    async def run(self, work: Callable[[*Ts], T], *args: *Ts, undo: Callable[[T], object] | None = None) -> T:
        """What `work(*args)` returns.

        A cancelled call waits until the thread has finished (or has not begun), so that the caller can clean up files
        that nothing else uses. `undo` then gets the result that the caller does not: a descriptor to close, say.
        """
        job = self._pool.submit(work, *args)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.cancelled():
                end = asyncio.wrap_future(job)
                await settled(end)
                if end.exception() is None and undo is not None:
                    undo(end.result())
            raise

    async def close(self) -> None:
        """Wait for what still runs. Safe to call twice."""
        await asyncio.to_thread(self._pool.shutdown)


async def settled(work: asyncio.Future[T], seconds: float | None = None) -> bool:
    """Wait for `work` to end, for at most `seconds`, however often we are cancelled meanwhile; whether it did end."""
    until = None if seconds is None else asyncio.get_running_loop().time() + seconds
    while not work.done() and (until is None or asyncio.get_running_loop().time() < until):
        with suppress(asyncio.CancelledError):
            left = None if until is None else until - asyncio.get_running_loop().time()
            await asyncio.wait({work}, timeout=left)
    return work.done()
