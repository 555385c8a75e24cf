"""Group commit: steps that finish at the same time share one transaction, so that its cost is paid per batch.

One step must not block the others: a batch that fails is split in halves until the step that causes the failure is
alone. A step whose rows are locked by another transaction is then retried by itself; one that the database refuses for
good is replaced by its fallback (`Step.otherwise`), the last of which is its dead letter.

If even the dead letter is refused, which touches nothing but `inbox` and `outbox` and contains nothing but bytes, no
other table of the same database would be more likely to store it. The record still is in Kafka, so its position is
logged and counted (`concord_steps_abandoned`, with an alert), and its event counts as done: otherwise its partition's
offset could never be committed again.
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

#: Most steps in one transaction.
BATCH = 200

#: Steps with locked rows that are retried at once: each takes a connection of the pool for `postgres.LOCK_S`.
APART = 2

#: Longest pause between two tries of such a step, and between two log lines about waiting steps, in seconds.
PAUSE_S, LOG_INTERVAL_S = 5.0, 30.0


@dataclass(slots=True, eq=False)
class _PendingStep:
    step: Step
    #: Resolved with what was stored; `commit` waits for it.
    stored: asyncio.Future[Step]
    since: float = field(default_factory=time.monotonic)

    def resolve(self) -> None:
        """Wake the caller of `commit`, unless it was cancelled."""
        if not self.stored.done():
            self.stored.set_result(self.step)


class Committer:
    """Commits steps in the order in which they arrive; while the database is unavailable, they wait."""

    def __init__(self, database: Steps, abandoned: Callable[[Step], None] = lambda _: None) -> None:
        """`abandoned` is called with each step for which not even a dead letter could be stored."""
        self._database = database
        self._abandoned = abandoned
        self._queue: deque[_PendingStep] = deque()
        #: Every step that is not durable yet, the oldest first.
        self._pending: dict[_PendingStep, None] = {}
        self._draining: asyncio.Task[None] | None = None
        self._apart: set[asyncio.Task[None]] = set()
        self._apart_slots = asyncio.Semaphore(APART)
        self._logged_at = -LOG_INTERVAL_S

    @property
    def oldest_s(self) -> float:
        """Seconds for which the oldest pending step has waited to be stored; 0 without one."""
        oldest = min((pending.since for pending in self._pending), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    async def commit(self, step: Step) -> Step:
        """Wait until the step is durable; the step that was stored, which may be a fallback of this one.

        Raises nothing but CancelledError; the step may be stored all the same.
        """
        pending = _PendingStep(step, asyncio.get_running_loop().create_future())
        self._pending[pending] = None
        pending.stored.add_done_callback(lambda _: self._pending.pop(pending, None))
        self._queue.append(pending)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await pending.stored

    async def _drain(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            await self._commit(batch)

    async def _commit(self, batch: list[_PendingStep]) -> None:
        """Commit the batch, or else its halves; a step that fails alone is retried apart, or replaced."""
        try:
            await self._commit_when_available([pending.step for pending in batch])
        except Contended as exc:
            if len(batch) == 1:
                self._set_apart(batch[0], exc)
                return
        except Exception as exc:  # noqa: BLE001 - whatever it is, it must not block the other steps
            if len(batch) == 1:
                await self._replace(batch[0], exc)
                return
        else:
            for pending in batch:
                pending.resolve()
            return
        middle = len(batch) // 2
        await self._commit(batch[:middle])
        await self._commit(batch[middle:])

    async def _commit_when_available(self, steps: list[Step]) -> None:
        """Commit, however long the database is unavailable. Contention is retried once: mostly it has passed then."""
        tries = 0
        while True:
            try:
                await self._database.commit(steps)
            except Unavailable as exc:
                if isinstance(exc, Contended) and tries:
                    raise
                self._log_waiting(exc)
                await asyncio.sleep(min(backoff_s(tries) / 4, 2.0))
                tries += 1
            else:
                return

    def _set_apart(self, pending: _PendingStep, exc: Contended) -> None:
        """Retry the step in a task of its own until it is stored, while the queue goes on."""
        self._log_waiting(exc)
        task = asyncio.create_task(self._commit_apart(pending))
        self._apart.add(task)
        task.add_done_callback(self._apart.discard)

    async def _commit_apart(self, pending: _PendingStep) -> None:
        tries = 0
        while not pending.stored.done():
            await asyncio.sleep(min(backoff_s(tries), PAUSE_S))
            tries += 1
            try:
                async with self._apart_slots:
                    await self._database.commit([pending.step])
            except Unavailable as exc:
                self._log_waiting(exc)
            except Exception as exc:  # noqa: BLE001 - as above
                await self._replace(pending, exc)
                return
            else:
                pending.resolve()

    async def _replace(self, pending: _PendingStep, exc: Exception) -> None:
        """Commit the step's fallback, because the database refuses the step for good."""
        log.error("a step of %s (%s) cannot be stored", pending.step.stage, pending.step.event_id, exc_info=exc)
        try:
            fallback = pending.step.otherwise and pending.step.otherwise(exc)
        except Exception:
            log.exception("the step's fallback cannot be built")
            fallback = None
        if fallback is None:
            self._abandon(pending)
            return
        pending.step = fallback
        await self._commit([pending])

    def _abandon(self, pending: _PendingStep) -> None:
        log.critical("nothing of %s could be stored; its record stays in Kafka: %s", *_described(pending.step))
        self._abandoned(pending.step)
        pending.resolve()

    def _log_waiting(self, exc: Unavailable) -> None:
        """Log, at most every `LOG_INTERVAL_S` seconds, how many steps wait and why."""
        now = time.monotonic()
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            log.warning("%d steps wait, the oldest for %.0f s: %s", len(self._pending), self.oldest_s, exc)

    async def close(self) -> None:
        """Cancel all commits. Steps that are not durable are not acknowledged, and so their events come again."""
        tasks = [task for task in (self._draining, *self._apart) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _described(step: Step) -> tuple[str, str]:
    """The step's stage and event, and the position in Kafka of its record."""
    letters = [dict(message.headers) for message, _ in step.outcome.raw]
    headers = next((letter for letter in letters if "dlq-offset" in letter), {})
    names = ("dlq-topic", "dlq-partition", "dlq-offset")
    return f"{step.stage}/{step.event_id}", "/".join((headers.get(name) or b"?").decode() for name in names)
