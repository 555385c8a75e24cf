"""The gate before a busy event loop."""

from __future__ import annotations

import asyncio
import time

from agents.runtime.backpressure import BEHIND, BURST, Admission


async def busy(until: asyncio.Event) -> None:
    """Keep the loop from turning more than a hundred times a second."""
    while not until.is_set():
        time.sleep(0.01)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(0)


async def entered(gate: Admission, rank: int | None, order: list[int | None]) -> None:
    await gate.enter(rank)
    order.append(rank)


async def test_a_loop_with_nothing_to_do_lets_everybody_in() -> None:
    gate, order = Admission(), list[int | None]()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(entered(gate, number % 3, order))
    assert len(order) == 500


async def test_an_idle_process_begins_at_once() -> None:
    gate = Admission()
    async with asyncio.timeout(0):  # not even a turn of the loop
        for _ in range(BURST):
            await gate.enter(2)


async def test_a_late_loop_lets_nobody_in_and_then_first_what_is_nearest_to_its_end() -> None:
    gate, order, calm = Admission(), list[int | None](), asyncio.Event()
    hog = asyncio.create_task(busy(calm))
    await asyncio.sleep(0.1)
    for _ in range(BURST):
        await gate.enter(2)
    await asyncio.sleep(0.2)  # it notices
    waiting = [asyncio.create_task(entered(gate, rank, order)) for rank in (2, 0, 1, 2, 1, 0)]
    await asyncio.sleep(0.3)
    assert order == []
    calm.set()
    async with asyncio.timeout(5):
        await asyncio.gather(hog, *waiting)
    assert order == [0, 0, 1, 1, 2, 2]


async def test_new_work_takes_turns_with_what_has_begun() -> None:
    gate, order, calm = Admission(), list[int | None](), asyncio.Event()
    hog = asyncio.create_task(busy(calm))
    for _ in range(BURST):
        await gate.enter(2)
    await asyncio.sleep(0.3)
    waiting = [asyncio.create_task(entered(gate, rank, order)) for rank in (None, None, None, 1, 0, 0, 1)]
    calm.set()
    async with asyncio.timeout(5):
        await asyncio.gather(hog, *waiting)
    assert order == [None, 0, None, 0, None, 1, 1]


async def test_a_process_with_more_begun_than_it_can_do_is_behind_and_new_work_does_not_count() -> None:
    gate, order, calm = Admission(), list[int | None](), asyncio.Event()
    hog = asyncio.create_task(busy(calm))
    for _ in range(BURST):
        await gate.enter(2)
    await asyncio.sleep(0.3)
    waiting = [asyncio.create_task(entered(gate, None, order)) for _ in range(3 * BEHIND)]
    await asyncio.sleep(0.05)
    assert not gate.behind
    waiting += [asyncio.create_task(entered(gate, 1, order)) for _ in range(2 * BEHIND)]
    await asyncio.sleep(0.05)
    assert gate.behind
    calm.set()
    async with asyncio.timeout(5):
        await asyncio.gather(hog, *waiting)
    assert not gate.behind


async def test_who_went_away_takes_no_turn() -> None:
    gate, order, calm = Admission(), list[int | None](), asyncio.Event()
    hog = asyncio.create_task(busy(calm))
    for _ in range(BURST):
        await gate.enter(2)
    await asyncio.sleep(0.3)
    gone, stays = (asyncio.create_task(entered(gate, 1, order)) for _ in range(2))
    await asyncio.sleep(0.05)
    gone.cancel()
    calm.set()
    async with asyncio.timeout(5):
        await asyncio.gather(hog, stays)
    assert gone.cancelled() or gone.done()
    assert order == [1]


async def test_a_loop_that_is_always_late_still_lets_in_one_for_each_that_leaves() -> None:
    gate, order, calm = Admission(), list[int | None](), asyncio.Event()
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
