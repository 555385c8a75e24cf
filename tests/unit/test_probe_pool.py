"""The order in which files of several tenants are probed."""

from __future__ import annotations

import asyncio
import contextlib

from sinks.fair_slots import FairSlots


async def told(slots: FairSlots[str], *tenants: str) -> tuple[list[str], asyncio.Queue[None], list[asyncio.Task[None]]]:
    """Who has had a slot so far, in order; each keeps it until something is put into the queue."""
    begun: list[str] = []
    end: asyncio.Queue[None] = asyncio.Queue()

    async def probe(tenant: str) -> None:
        async with slots.held(tenant):
            begun.append(tenant)
            await end.get()

    tasks = [asyncio.create_task(probe(tenant)) for tenant in tenants]
    await asyncio.sleep(0.01)
    return begun, end, tasks


async def test_slow_files_of_one_tenant_leave_a_process_to_others():
    begun, end, tasks = await told(FairSlots(3, 2), *"aaaaaa", "b", "b")

    assert begun == ["a", "a", "b"]
    for _ in tasks:
        end.put_nowait(None)
    await asyncio.gather(*tasks)
    assert begun.index("b", 3) < 7  # not behind all others of a
    assert sorted(begun) == [*"aaaaaa", "b", "b"]


async def test_a_slot_is_not_lost_when_who_has_it_or_waits_for_it_is_cancelled():
    slots: FairSlots[str] = FairSlots(1, 1)
    _, _, tasks = await told(slots, *"aab")
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    begun, end, tasks = await told(slots, "c")
    assert begun == ["c"]
    end.put_nowait(None)
    await asyncio.gather(*tasks)
