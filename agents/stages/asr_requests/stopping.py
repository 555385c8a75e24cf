"""Stops a recognizer on this machine when what it hears is not needed any more: cancelled, deleted, or too late."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from schemas.errors import Unavailable
from sinks.ports.providers.requests import Requests

#: Seconds between two looks at the requests that are heard. All that one recognizer hears share a statement.
LOOK_S: Final = 1.0

Run = tuple[str, str, int]
T = TypeVar("T")


@dataclass
class Stopping:
    """Watches the requests to one recognizer that this process works on. While there are none, it asks nothing.

    Events do not tell of a cancellation: an event that comes of a run which has ended is refused, so that there is none
    any more to look by.
    """

    requests: Requests
    provider: str
    _running: dict[asyncio.Task[Any], Run] = field(default_factory=dict)
    _looking: asyncio.Task[None] | None = None

    async def unless_ended(self, run: Run, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of the work; None if the run's request ended meanwhile, and the work was cancelled therefore."""
        task = asyncio.create_task(work)
        self._running[task] = run
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            await asyncio.wait([task])
        finally:
            del self._running[task]
            if not self._running:
                self._looking.cancel()
                self._looking = None
            task.cancel()
            await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _look(self) -> None:
        while self._running:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(Unavailable):
                await asyncio.gather(*(self._end(task, run) for task, run in list(self._running.items())))

    async def _end(self, task: asyncio.Task[Any], run: Run) -> None:
        rows = await self.requests.requests(*run)
        if all(row.ended for row in rows if row.provider == self.provider):
            task.cancel()
