"""Group commit: steps that finish together share a transaction, so that the cost of the guarantee is per batch, not per
event.

One step must not keep the others: a batch that fails is halved until what it fails for stands alone. A step whose rows
somebody else has locked then waits apart; one that the database refuses for good is replaced by what it brings along
for that (`Step.otherwise`), down to its dead letter.

Should even the dead letter be refused, which touches nothing but `inbox` and `outbox` and holds nothing but bytes, no
other table of the same database is a likelier place for it. The record still is in Kafka, so its place there is logged
and counted (`concord_steps_abandoned`, with an alert), and its event is done: held back, it would keep its partition's
offset for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agents.runtime.stage import backoff_s
from schemas.errors import Contended, Unavailable
from schemas.jobs.outcome import Step
from sinks.ports.steps import Steps

log = logging.getLogger(__name__)

#: Steps in one transaction at most.
BATCH = 200

#: Steps that wait for locked rows and are tried at once: each takes a connection of the pool for `postgres.LOCK_S`.
APART = 2

#: Seconds between two tries of such a step at most, and between two lines in the log about waiting.
PAUSE_S, TOLD_S = 5.0, 30.0


@dataclass(slots=True, eq=False)
class _Waiting:
    step: Step
    done: asyncio.Future[Step]
    since: float = field(default_factory=time.monotonic)


class Committer:
    """Commits steps in the order they come; waits out the database's absence."""

    def __init__(self, database: Steps, abandoned: Callable[[Step], None] = lambda _: None) -> None:
        """`abandoned` is told of a step of which nothing could be stored."""
        self._database = database
        self._abandoned = abandoned
        self._queue: deque[_Waiting] = deque()
        #: Everything that is not durable yet, the oldest first.
        self._open: dict[_Waiting, None] = {}
        self._draining: asyncio.Task[None] | None = None
        self._apart: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(APART)
        self._told = -TOLD_S

    @property
    def oldest_s(self) -> float:
        """For how many seconds the oldest step has been waiting to be stored."""
        oldest = min((waiting.since for waiting in self._open), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    async def commit(self, step: Step) -> Step:
        """Return when it is durable: the step, or what was stored in its place.

        Raises nothing but cancellation; the step may be stored all the same.
        """
        waiting = _Waiting(step, asyncio.get_running_loop().create_future())
        self._open[waiting] = None
        waiting.done.add_done_callback(lambda _: self._open.pop(waiting, None))
        self._queue.append(waiting)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await waiting.done

    async def _drain(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            await self._commit(batch)

    async def _commit(self, batch: list[_Waiting]) -> None:
        """The batch, whole; or its halves; or, alone, what is left to be done about it."""
        try:
            await self._patiently([w.step for w in batch])
        except Contended as exc:
            if len(batch) == 1:
                self._set_apart(batch[0], exc)
                return
        except Exception as exc:  # noqa: BLE001 - whatever it is, it must not hold up the others
            if len(batch) == 1:
                await self._replace(batch[0], exc)
                return
        else:
            for one in batch:
                if not one.done.done():
                    one.done.set_result(one.step)
            return
        middle = len(batch) // 2
        await self._commit(batch[:middle])
        await self._commit(batch[middle:])

    async def _patiently(self, steps: list[Step]) -> None:
        """Commit, however long the database is away. Contention is given a second chance: mostly it is over by then."""
        tries = 0
        while True:
            try:
                await self._database.commit(steps)
            except Unavailable as exc:
                if isinstance(exc, Contended) and tries:
                    raise
                self._tell(exc)
                await asyncio.sleep(min(backoff_s(tries) / 4, 2.0))
                tries += 1
            else:
                return

    def _set_apart(self, one: _Waiting, exc: Contended) -> None:
        """Try it by itself, until it is stored, while others go on."""
        self._tell(exc)
        task = asyncio.create_task(self._commit_apart(one))
        self._apart.add(task)
        task.add_done_callback(self._apart.discard)

    async def _commit_apart(self, one: _Waiting) -> None:
        tries = 0
        while not one.done.done():
            await asyncio.sleep(min(backoff_s(tries), PAUSE_S))
            tries += 1
            try:
                async with self._places:
                    await self._database.commit([one.step])
            except Unavailable as exc:
                self._tell(exc)
            except Exception as exc:  # noqa: BLE001 - as above
                await self._replace(one, exc)
                return
            else:
                if not one.done.done():
                    one.done.set_result(one.step)

    async def _replace(self, one: _Waiting, exc: Exception) -> None:
        """Commit what the step brings along for the case that it is refused for good."""
        log.error("a step of %s (%s) cannot be stored", one.step.stage, one.step.event_id, exc_info=exc)
        try:
            instead = one.step.otherwise and one.step.otherwise(exc)
        except Exception:
            log.exception("nothing simpler could be made of it")
            instead = None
        if instead is not None:
            one.step = instead
            await self._commit([one])
            return
        self._abandon(one)

    def _abandon(self, one: _Waiting) -> None:
        log.critical("nothing of %s could be stored; its record stays where it is: %s", *_described(one.step))
        self._abandoned(one.step)
        if not one.done.done():
            one.done.set_result(one.step)

    def _tell(self, exc: Unavailable) -> None:
        """Log that steps wait, from time to time."""
        now = time.monotonic()
        if now - self._told >= TOLD_S:
            self._told = now
            log.warning("%d steps wait, the oldest for %.0f s: %s", len(self._open), self.oldest_s, exc)

    async def close(self) -> None:
        """Stop; what is not committed is not acked."""
        tasks = [task for task in (self._draining, *self._apart) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _described(step: Step) -> tuple[str, str]:
    """The step, and the place in Kafka of the record that it is about."""
    letters = [dict(message.headers) for message, _ in step.outcome.raw]
    place = next((h for h in letters if "dlq-offset" in h), {})
    names = ("dlq-topic", "dlq-partition", "dlq-offset")
    return f"{step.stage}/{step.event_id}", "/".join((place.get(name) or b"?").decode() for name in names)
