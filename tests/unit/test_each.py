"""Doing all items, so many at a time: how many run at once, and what an error does."""

from __future__ import annotations

import asyncio

import pytest

from agents.runtime.leased_tasks import each
from schemas.errors import Unavailable


async def test_each_does_all_items_so_many_at_a_time():
    running, most, done = 0, 0, []

    async def do(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(item)

    await each(range(7), do, 3)

    assert (most, sorted(done)) == (3, list(range(7)))


async def test_the_first_error_of_each_ends_the_others_and_is_raised_as_it_is():
    begun, cancelled = [], []

    async def do(item: int) -> None:
        begun.append(item)
        if item == 1:
            await asyncio.sleep(0)
            raise Unavailable("away")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(Unavailable):
        await each(range(9), do, 3)

    assert (begun, sorted(cancelled)) == ([0, 1, 2], [0, 2])
