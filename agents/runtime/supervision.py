"""Restarts each task of a worker by itself when it fails, and detects crash loops.

A task that fails because of a record fails again when it reads that record again, and seems ready for some seconds in
between. So a task counts as crash-looping until it has run for `STEADY_S` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError

from schemas.errors import Unavailable

log = logging.getLogger(__name__)

#: Seconds before a task that failed is restarted: at first, and at most.
PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0

#: Seconds for which a task has to run before earlier failures are forgotten.
STEADY_S = 30.0


class Hung(Exception):
    """A failed task does not end and keeps resources that its successor would need: the process has to be restarted."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a Kafka partition: the first record that a stage had not handled."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class StageCrashed(Exception):
    """A stage has crashed at these positions; its `__cause__` is the error."""

    def __init__(self, positions: tuple[Position, ...]) -> None:
        super().__init__("it has stopped")
        self.positions = positions


@dataclass(eq=False)
class SupervisedTask:
    """A task that should run as long as the worker does."""

    name: str
    #: Runs the task, and calls its argument once the task has started. Returns only by failing.
    run: Callable[[Callable[[], None]], Awaitable[None]]
    #: Called at each failure, for metrics.
    on_failure: Callable[[], object] = lambda: None
    restarts: int = 0
    error: str | None = None
    positions: tuple[Position, ...] = ()
    #: Set once the task has started or failed for the first time.
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    hung: bool = False
    _failed_at: float = 0.0
    _failures_in_a_row: int = 0

    @property
    def crash_looping(self) -> bool:
        """Whether the task has failed more than once without running for `STEADY_S` in between or since."""
        return self._failures_in_a_row > 1 and time.monotonic() - self._failed_at < STEADY_S

    @property
    def summary(self) -> str:
        """How often the task failed, at which positions, and the last error, for people."""
        where = f" at {', '.join(map(str, self.positions[:3]))}" if self.positions else ""
        return f"failed {self.restarts} times{where}: {self.error}"

    async def supervise(self) -> None:
        """Run the task; after a failure run it again, after a pause that doubles. Returns only when cancelled.

        Raises:
            Hung: the task can neither go on nor be restarted.
        """
        pause_s = PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await self.run(self.begun.set)
                self._record_failure(RuntimeError("it has ended"))
            except Hung as exc:
                self._record_failure(exc)
                self.hung = True
                raise
            except Exception as exc:  # noqa: BLE001 - whatever it is, the other tasks go on
                self._record_failure(exc)
            finally:
                self.begun.set()
            if time.monotonic() - began > STEADY_S:
                self._failures_in_a_row, pause_s = 1, PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _record_failure(self, exc: Exception) -> None:
        cause = exc.__cause__ if isinstance(exc, StageCrashed) and exc.__cause__ is not None else exc
        self.error = f"{type(cause).__name__}: {cause}"[:500]
        self.positions = exc.positions if isinstance(exc, StageCrashed) else ()
        self.restarts += 1
        self._failures_in_a_row += 1
        self._failed_at = time.monotonic()
        self.on_failure()
        is_outage = isinstance(cause, KafkaError | Unavailable | OSError)
        log.error("%s %s", self.name, self.summary, exc_info=None if is_outage else cause)
