"""Slots that tenants share: limits hold, no tenant waits for another's queue, and every slot is released."""

from __future__ import annotations

import asyncio
import random

from sinks.fair_slots import FairSlots


async def test_a_tenant_with_a_long_queue_does_not_delay_others():
    slots, served = FairSlots(2, 1), []

    async def ask(tenant):
        async with slots.held(tenant):
            served.append(tenant)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for tenant in ["a"] * 50 + ["b"] * 3 + ["c"]:
            group.create_task(ask(tenant))

    assert served.index("b") < 4
    assert served.index("c") < 6
    assert served.count("a") == 50


async def test_bounds_hold_and_every_slot_is_released_whichever_task_is_cancelled():
    chance = random.Random(7)
    slots, held, most = FairSlots(4, 2), {"a": 0, "b": 0, "c": 0}, []

    async def ask(tenant):
        async with slots.held(tenant):
            held[tenant] += 1
            most.append((sum(held.values()), held[tenant]))
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                held[tenant] -= 1

    tasks = []
    for _ in range(500):
        tasks.append(asyncio.create_task(ask(chance.choice("abc"))))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert max(total for total, _ in most) == 4
    assert max(own for _, own in most) == 2
    assert slots._free == 4
    assert not slots._held
    assert not slots._waiting
