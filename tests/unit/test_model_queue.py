"""The order in which a recognizer on this machine hears what has a slot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from agents.stages.asr_requests.model_queue import ModelQueue

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Tasks:
    """Tasks that use the model until they are told to end."""

    def __init__(self, queue: ModelQueue) -> None:
        self.queue, self.began = queue, []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, key: str, since: float, urgency: int = 4) -> None:
        async def work() -> None:
            async with self.queue.turn(key, (urgency, at(since))):
                self.began.append(key)
                await self._ends[key].wait()

        self._ends[key] = asyncio.Event()
        self._tasks[key] = asyncio.create_task(work())
        await asyncio.sleep(0)

    async def end(self, key: str) -> None:
        self._ends[key].set()
        await self._tasks[key]
        await asyncio.sleep(0)

    async def cancel(self, *keys: str) -> None:
        for key in keys:
            self._tasks[key].cancel()
        await asyncio.gather(*(self._tasks[key] for key in keys), return_exceptions=True)
        await asyncio.sleep(0)


async def test_those_that_got_their_slot_first_are_first():
    tasks = Tasks(ModelQueue())
    for key, since in (("x", 5), ("c", 3), ("a", 1), ("b", 2), ("b2", 2)):
        await tasks.start(key, since)
    assert [key for key in "xabc" if tasks.queue.is_running(key)] == ["x"]
    for key in ("x", "a", "b", "b2"):
        await tasks.end(key)
    assert tasks.began == ["x", "a", "b", "b2", "c"]


async def test_the_most_urgent_are_first_however_late_they_come():
    tasks = Tasks(ModelQueue())
    for number in range(3):
        await tasks.start(f"{number}", number)
    await tasks.start("urgent", 8, urgency=0)
    await tasks.end("0")
    await tasks.start("too late for the second", 9, urgency=0)
    for key in ("urgent", "too late for the second", "1"):
        await tasks.end(key)
    assert tasks.began == ["0", "urgent", "too late for the second", "1", "2"]


async def test_so_many_run_at_once():
    tasks = Tasks(ModelQueue(2))
    for number in range(5):
        await tasks.start(f"{number}", number)
    assert tasks.began == ["0", "1"]
    await tasks.end("1")
    assert tasks.began == ["0", "1", "2"]
    for key in ("0", "2", "3", "4"):
        await tasks.end(key)
    await tasks.start("later", 9)
    await tasks.start("last", 10)
    assert tasks.began[5:] == ["later", "last"]


async def test_a_task_that_is_cancelled_makes_room_wherever_it_is():
    tasks = Tasks(ModelQueue())
    for number in range(4):
        await tasks.start(f"{number}", number)
    await tasks.cancel("1")  # while it waits
    await tasks.cancel("0")  # while it has the model
    assert tasks.began == ["0", "2"]
    tasks._ends["2"].set()
    await asyncio.sleep(0)  # it gives the model to the last one, which is cancelled before it takes it
    await tasks.cancel("3")
    await tasks.start("later", 9)
    assert tasks.began == ["0", "2", "later"]
    assert not tasks.queue.is_running("2")
