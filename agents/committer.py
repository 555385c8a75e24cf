"""Group commit: steps that finish together share a transaction, so that the cost of the guarantee is per batch, not per
event.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from agents.stage import backoff_s, undeliverable
from schemas.errors import Unavailable
from schemas.jobs import Failure, Step, Written
from sinks import Database

log = logging.getLogger(__name__)

#: Steps in one transaction at most.
BATCH = 200


@dataclass(slots=True)
class _Waiting:
    step: Step
    done: asyncio.Future[Written | None]


class Committer:
    """Commits steps in the order they come; waits out the database's absence."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    async def commit(self, step: Step) -> Written | None:
        """Return when the step is durable; None if its event had been handled before."""
        waiting = _Waiting(step, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await waiting.done

    async def _drain(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            await self._commit_all(batch)

    async def _commit_all(self, batch: list[_Waiting]) -> None:
        try:
            written = await self._patiently([w.step for w in batch])
        except Exception as exc:  # noqa: BLE001 - a step that the database refuses, whatever the reason, must not hold up the others
            if len(batch) > 1:
                for one in batch:
                    await self._commit_all([one])
            else:
                await self._refuse(batch[0], exc)
            return
        for one, result in zip(batch, written, strict=True):
            if not one.done.done():
                one.done.set_result(result)

    async def _patiently(self, steps: list[Step]) -> list[Written | None]:
        tries = 0
        while True:
            try:
                return await self._database.commit(steps)
            except Unavailable as exc:
                log.warning("%d steps wait: %s", len(steps), exc)
                await asyncio.sleep(min(backoff_s(tries) / 4, 2.0))
                tries += 1

    async def _refuse(self, one: _Waiting, exc: Exception) -> None:
        log.error("the database refuses a step of %s", one.step.stage, exc_info=exc)
        envelope = one.step.envelope
        if envelope is None or one.step.outcome.job_id is None:
            one.done.set_exception(exc)
            return
        reason = f"internal error: the result could not be stored ({type(exc).__name__})"
        try:
            letter = undeliverable(one.step.stage, envelope.record, Failure(reason))
            one.done.set_result((await self._patiently([letter]))[0])
        except Exception as again:  # noqa: BLE001 - it is the waiting handler's
            one.done.set_exception(again)

    async def close(self) -> None:
        """Stop; what is not committed is not acked."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
