"""What every database must do with leases; see `sinks.ports.leases`."""

from __future__ import annotations

import asyncio


async def test_a_lease_has_one_holder_until_it_runs_out(under_test):
    database = under_test.database

    assert await database.lease("k", "one", 0.2)
    assert await database.lease("k", "one", 0.2)
    assert not await database.lease("k", "two", 30)
    await asyncio.sleep(0.3)
    assert await database.lease("k", "two", 30)
    await database.release("k", "one")
    assert not await database.lease("k", "one", 30)
    await database.release("k", "two")
    assert await database.lease("k", "one", 30)


async def test_the_processes_of_a_role_are_counted(under_test):
    database = under_test.database

    assert await database.register_worker("local a", "one", 30) == 1
    assert await database.register_worker("local a", "two", 30) == 2
    assert await database.register_worker("local a", "one", 30) == 2
    assert await database.register_worker("local ab", "three", 30) == 1
    await database.register_worker("local a", "two", -1)
    assert await database.register_worker("local a", "one", 30) == 1
