"""What every database must do with slots and their queue; see `sinks.ports.providers.slots`."""

from __future__ import annotations

from tests.contract.databases.cases import (
    asking,
    changed,
    created,
    due_jobs,
    moved,
    under_way,
    waiting,
)


async def test_only_so_many_requests_are_under_way_and_the_others_queue(under_test):
    await asking(under_test, *map(waiting, "pqrs"))

    assert await under_way(under_test, 2, *"pqrs") == ["p", "q"]
    assert await under_way(under_test, 2, *"pqrs") == ["p", "q"]  # a slot is kept, and so is a place in the queue
    traffic = await under_test.database.grant_slots("a", 2)
    assert (traffic.under_way, traffic.queued) == (2, 2)
    rows = await under_test.database.requests("t", "r", 1)
    assert rows[0].queued_at is not None


async def test_a_slot_that_is_free_again_goes_to_the_queue_and_makes_its_event_due(under_test):
    await asking(under_test, *map(waiting, "pqr"))
    await under_way(under_test, 1, *"pqr")
    await under_test.database.claim("t", "p", 1, "a", 30)
    assert (await under_test.database.grant_slots("a", 1)).queued == 2
    await under_test.database.commit([changed("a", 1, "p", state="done")])

    traffic = await under_test.database.grant_slots("a", 1)

    assert (traffic.under_way, traffic.queued) == (1, 1)
    assert await under_way(under_test, 1, *"qr") == ["q"]
    assert await due_jobs(under_test) == ["q"]


async def test_the_urgent_are_first_and_tenants_take_turns(under_test):
    bulk = [waiting(f"b{n}", "big", 4) for n in range(4)]
    others = [waiting("s1", "small", 4), waiting("u1", "big", 9), waiting("s2", "small", 4)]
    await asking(under_test, waiting("x"), *bulk, *others)
    await under_way(under_test, 1, "x")
    for one in (*bulk, *others):
        await under_way(under_test, 1, one.job_id, tenant=one.tenant_id)

    await under_test.database.grant_slots("a", 6)

    assert set(await due_jobs(under_test)) == {"u1", "s1", "b0", "s2", "b1"}


async def test_bulk_leaves_a_share_of_the_slots_free(under_test):
    await asking(under_test, *(waiting(f"b{n}", priority=0) for n in range(12)), waiting("live"))

    assert len(await under_way(under_test, 10, *(f"b{n}" for n in range(12)))) == 8
    assert (await under_test.database.grant_slots("a", 10)).under_way == 8
    assert await under_way(under_test, 10, "live") == []  # there is a queue, and it is the first in it
    assert (await under_test.database.grant_slots("a", 10)).under_way == 9
    assert await under_way(under_test, 10, "live") == ["live"]


async def test_a_queued_request_without_an_event_is_admitted_later(under_test):
    await under_test.database.commit([created(waiting("p"), "a"), created(waiting("q"), "a")])
    await under_way(under_test, 1, "p")
    await under_way(under_test, 1, "q")

    assert (await under_test.database.grant_slots("a", 5)).queued == 1


async def test_requests_of_an_ended_run_hold_no_slot(under_test):
    await asking(under_test, *map(waiting, "pqr"))
    await under_way(under_test, 2, *"pqr")
    await under_test.database.claim("t", "q", 1, "a", 30)
    await under_test.database.commit([moved("failed", job_id=id) for id in "pq"])

    assert (await under_test.database.grant_slots("a", 2)).under_way == 1
    rows = [(await under_test.database.requests("t", id, 1))[0] for id in "pq"]
    assert [(row.state, row.abandoned_at is not None) for row in rows] == [("failed", False), ("failed", True)]
    assert not [m for m in await under_test.due() if m[0] == "asr.results"]


async def test_each_that_waits_has_its_place_in_the_order_in_which_slots_are_given(under_test):
    bulk = [waiting(f"b{n}", "t", 4) for n in range(4)]
    others = [waiting("s1", "small", 4), waiting("u1", "urgent", 9), waiting("s2", "small", 4)]
    first = waiting("x", "t")
    await asking(under_test, first, *bulk, *others, waiting("never"))
    for one in (first, *bulk, *others):
        await under_way(under_test, 1, one.job_id, tenant=one.tenant_id)
    position = under_test.database.queue_position

    async def places() -> list[str]:
        """Who waits, by place."""
        at = {await position(one.tenant_id, one.job_id, 1, "a"): one.job_id for one in (first, *bulk, *others)}
        at.pop(None, None)
        assert sorted(at) == list(range(1, len(at) + 1))
        return [at[place] for place in sorted(at)]

    assert await places() == ["x", "u1", "s1", "b0", "s2", "b1", "b2", "b3"]  # the first has a slot, and not begun
    await under_test.database.commit([changed("a", 0, "x", submitted_at=await under_test.database.now())])
    assert await places() == ["u1", "s1", "b0", "s2", "b1", "b2", "b3"]
    assert await position("t", "never", 1, "a") is None
    assert await position("t", "unknown", 1, "a") is None
    await under_test.database.grant_slots("a", 4)
    assert await places() == ["u1", "s1", "b0", "s2", "b1", "b2", "b3"]
