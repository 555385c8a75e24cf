"""How many pieces of work run at once: slots that tenants and hosts share, and `each`."""

from __future__ import annotations

import asyncio

import pytest

from agents.runtime.leased_tasks import LeasedTasks, each
from schemas.errors import Unavailable
from sinks.memory.database import MemoryDatabase


async def never(_) -> None:
    """Work that does not end."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("limit", "held", "asks", "begins"),
    [
        (8, "aaa", "a", True),
        (8, "aaaa", "a", False),  # one alone has half of the slots
        (8, "aaaa", "b", True),
        (8, "aaaabb", "b", False),  # two of eight are free, and b has two
        (8, "aaaabb", "c", True),
        (8, "aaaabbc", "d", True),  # there is always one for the next
        (8, "aaaabbc", "c", False),
        (1, "", "a", True),
        (1, "a", "b", False),
        (2, "a", "a", False),
        (2, "a", "b", True),
    ],
)
async def test_no_share_holds_more_slots_than_are_free_beside_it(limit, held, asks, begins):
    here = LeasedTasks(MemoryDatabase(), "here", limit)
    for number, share in enumerate(held):
        await here.run(f"k{number}", never, 0, eager=True, shares=(share,))
    assert "".join(sorted(here.held.elements())) == held, "the slots that the row begins with"
    assert here.full((asks,)) != begins
    await here.run("k", never, 0, eager=True, shares=(asks,))

    assert here.held[asks] == held.count(asks) + begins
    await here.close()


async def test_work_of_two_shares_needs_room_in_both():
    here = LeasedTasks(MemoryDatabase(), "here", 4)
    for key, shares in {"k1": ("tenant", "host"), "k2": ("other", "host")}.items():
        await here.run(key, never, 0, eager=True, shares=shares)

    assert here.full(("tenant", "host"))
    assert not here.full(("tenant", "other host"))
    assert here.held == {"tenant": 1, "other": 1, "host": 2}
    await here.close()


async def test_work_that_has_ended_holds_no_slot_of_its_share():
    here, end = LeasedTasks(MemoryDatabase(), "here", 2), asyncio.Event()
    await here.run("k", lambda _: end.wait(), 0.001, eager=True, shares=("a",))
    assert here.full(("a",))
    end.set()
    await asyncio.sleep(0.001)

    assert not here.full(("a",))
    assert (here.free, here.held) == (2, {})
    await here.close()


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
