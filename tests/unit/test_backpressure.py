"""Backpressure on a busy event loop: which events start, and when."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from agents.runtime.backpressure import BEHIND, BURST, Backpressure


async def busy(until: asyncio.Event) -> None:
    """Keep the loop from turning more than a hundred times a second."""
    while not until.is_set():
        time.sleep(0.01)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(0)


async def entered(gate: Backpressure, rank: int | None, order: list[int | None]) -> None:
    await gate.enter(rank)
    order.append(rank)


@dataclass
class Late:
    """A gate whose loop is late, until `calm`; `order` is that in which it lets in."""

    gate: Backpressure = field(default_factory=Backpressure)
    order: list[int | None] = field(default_factory=list)
    _calm: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Late:
        self._hog = asyncio.create_task(busy(self._calm))
        for _ in range(BURST):
            await self.gate.enter(2)
        await asyncio.sleep(0.3)  # it notices
        return self

    async def __aexit__(self, *_: object) -> None:
        self._calm.set()
        await self._hog

    def waiting(self, *ranks: int | None) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(entered(self.gate, rank, self.order)) for rank in ranks]

    async def calm(self, waiting: list[asyncio.Task[None]]) -> None:
        """The loop is on time from now on, and lets these in."""
        self._calm.set()
        async with asyncio.timeout(5):
            await asyncio.gather(self._hog, *waiting)


async def test_a_loop_with_nothing_to_do_lets_everybody_in() -> None:
    gate, order = Backpressure(), list[int | None]()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(entered(gate, number % 3, order))
    assert len(order) == 500


async def test_an_idle_process_begins_at_once() -> None:
    gate = Backpressure()
    async with asyncio.timeout(0):  # not even a turn of the loop
        for _ in range(BURST):
            await gate.enter(2)


async def test_a_late_loop_admits_no_event_and_then_first_the_one_nearest_to_its_end() -> None:
    async with Late() as late:
        waiting = late.waiting(2, 0, 1, 2, 1, 0)
        await asyncio.sleep(0.3)
        assert late.order == []
        await late.calm(waiting)
    assert late.order == [0, 0, 1, 1, 2, 2]


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
        await asyncio.sleep(0.1)
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
    gate, order, calm = Backpressure(), list[int | None](), asyncio.Event()
    hog = asyncio.create_task(busy(calm))

    async def work(rank: int) -> None:
        await entered(gate, rank, order)
        await asyncio.sleep(0)
        gate.leave()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(work(number % 3))
    calm.set()
    await hog
    assert len(order) == 30
