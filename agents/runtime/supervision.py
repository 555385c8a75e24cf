"""Each part of a worker is started again when it fails, alone, and what fails again and again is a state that is told.

A part that fails for what it reads fails again when it reads that again. Seen from outside it is ready every few
seconds; so it counts as crash-looping until it has run for a while.
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

#: Seconds before a part that failed is started again: at first, and at most.
PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0

#: Seconds that a part has to run for its failures to be forgotten.
STEADY_S = 30.0


class Hung(Exception):
    """What failed does not end, and keeps what its successor would need: only the end of the process helps."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in Kafka a part was: the first record of a partition that it had not done."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Failed(Exception):
    """A stage has crashed, at these places; of what is its `__cause__`."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        super().__init__("it has stopped")
        self.places = places


@dataclass(eq=False)
class Part:
    """Something that should run all the time."""

    name: str
    #: Runs it, and says (by the argument) when it has started. Never returns while all is well.
    run: Callable[[Callable[[], None]], Awaitable[None]]
    #: Told of each failure, for metrics.
    failed: Callable[[], object] = lambda: None
    restarts: int = 0
    error: str | None = None
    places: tuple[Place, ...] = ()
    #: Set once it has started or failed for the first time.
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    hung: bool = False
    _failed_at: float = 0.0
    _in_a_row: int = 0

    @property
    def looping(self) -> bool:
        """Whether it has failed more than once without a steady time between or since."""
        return self._in_a_row > 1 and time.monotonic() - self._failed_at < STEADY_S

    @property
    def state(self) -> str:
        """What it failed of, for people, while that is worth telling."""
        where = f" at {', '.join(map(str, self.places[:3]))}" if self.places else ""
        return f"failed {self.restarts} times{where}: {self.error}"

    async def keep(self) -> None:
        """Run it; when it fails, run it again, after a pause that doubles. Never returns; cancelled, it stops.

        Raises Hung if it can neither go on nor begin anew.
        """
        pause_s = PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await self.run(self.begun.set)
                self._note(RuntimeError("it has ended"))
            except Hung as exc:
                self._note(exc)
                self.hung = True
                raise
            except Exception as exc:  # noqa: BLE001 - whatever it is, the other parts go on
                self._note(exc)
            finally:
                self.begun.set()
            if time.monotonic() - began > STEADY_S:
                self._in_a_row, pause_s = 1, PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _note(self, exc: Exception) -> None:
        cause = exc.__cause__ if isinstance(exc, Failed) and exc.__cause__ is not None else exc
        self.error = f"{type(cause).__name__}: {cause}"[:500]
        self.places = exc.places if isinstance(exc, Failed) else ()
        self.restarts += 1
        self._in_a_row += 1
        self._failed_at = time.monotonic()
        self.failed()
        away = isinstance(cause, KafkaError | Unavailable | OSError)
        log.error("%s %s", self.name, self.state, exc_info=None if away else cause)
