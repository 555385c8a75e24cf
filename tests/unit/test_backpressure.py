"""Backpressure on a busy event loop: which events start, and when."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from agents.runtime.backpressure import BEHIND, BURST, TICK_S, Backpressure


@dataclass
class LoopClock:
    """The time of a loop that is so many seconds late at each tick, whatever else the machine does."""

    late_s: float = 0.0
    _now: float = 0.0

    def __call__(self) -> float:
        self._now += TICK_S + self.late_s
        return self._now


async def entered(gate: Backpressure, rank: int | None, order: list[int | None]) -> None:
    await gate.enter(rank)
    order.append(rank)


@dataclass
class Late:
    """A gate whose loop is late, until `calm`; `order` is that in which it lets in."""

    clock: LoopClock = field(default_factory=lambda: LoopClock(late_s=0.01))
    order: list[int | None] = field(default_factory=list)

    async def __aenter__(self) -> Late:
        self.gate = Backpressure(self.clock)
        for _ in range(BURST):
            await self.gate.enter(2)
        await asyncio.sleep(10 * TICK_S)  # it notices
        return self

    async def __aexit__(self, *_: object) -> None:
        self.clock.late_s = 0.0

    def waiting(self, *ranks: int | None) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(entered(self.gate, rank, self.order)) for rank in ranks]

    async def calm(self, waiting: list[asyncio.Task[None]]) -> None:
        """The loop is on time from now on, and lets these in."""
        self.clock.late_s = 0.0
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)


async def test_a_loop_with_nothing_to_do_lets_everybody_in() -> None:
    gate, order = Backpressure(LoopClock()), list[int | None]()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(entered(gate, number % 3, order))
    assert len(order) == 200


async def test_an_idle_process_begins_at_once() -> None:
    gate = Backpressure()
    async with asyncio.timeout(0):  # not even a turn of the loop
        for _ in range(BURST):
            await gate.enter(2)


async def test_a_late_loop_admits_no_event_and_then_first_the_one_nearest_to_its_end() -> None:
    async with Late() as late:
        waiting = late.waiting(2, 0, 1, 2, 1, 0)
        await asyncio.sleep(0.1)
        assert late.order == []
        await late.calm(waiting)
    assert late.order == [0, 0, 1, 1, 2, 2]


async def test_a_loop_is_late_by_its_own_clock_while_something_holds_it() -> None:
    gate, order = Backpressure(), list[int | None]()
    for _ in range(BURST):
        await gate.enter(2)
    hog = asyncio.create_task(busy())
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(entered(gate, 0, order))
    await asyncio.sleep(0.2)
    assert order == []
    for task in (hog, waiting):
        task.cancel()


async def busy() -> None:
    """Keep the loop from turning more than a hundred times a second."""
    while True:
        time.sleep(0.01)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(0)


async def test_new_work_alternates_with_what_has_begun() -> None:
    async with Late() as late:
        await late.calm(late.waiting(None, None, None, 1, 0, 0, 1))
    assert late.order == [None, 0, None, 0, None, 1, 1]


async def test_a_process_is_behind_while_its_loop_is_late_and_much_new_work_waits() -> None:
    async with Late() as late:
        waiting = late.waiting(None, 0, 1, 2)
        await asyncio.sleep(0.05)
        late.gate.backlog = BEHIND
        assert not late.gate.behind
        late.gate.backlog = BEHIND + 1
        assert late.gate.behind
        await late.calm(waiting)
    assert not late.gate.behind


async def test_a_waiter_that_was_cancelled_is_skipped() -> None:
    async with Late() as late:
        gone, stays = late.waiting(1, 1)
        await asyncio.sleep(0.05)
        gone.cancel()
        await late.calm([stays])
    assert gone.cancelled() or gone.done()
    assert late.order == [1]


async def test_a_loop_that_is_always_late_still_lets_in_one_for_each_that_leaves() -> None:
    gate, order = Backpressure(LoopClock(late_s=0.01)), list[int | None]()

    async def work(rank: int) -> None:
        await entered(gate, rank, order)
        await asyncio.sleep(0)
        gate.leave()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(work(number % 3))
    assert len(order) == 30
