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


async def test_the_urgent_are_first_and_tenants_poll_claims(under_test):
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


async def test_what_is_more_urgent_takes_the_slot_of_what_has_not_begun(under_test):
    database = under_test.database
    usual = [waiting(f"b{n}") for n in range(5)]
    urgent = [waiting("u1", "u", 9), waiting("u2", "u", 9)]
    await asking(under_test, *usual, *urgent)
    await under_way(under_test, 3, *(one.job_id for one in usual))
    assert await database.begin("t", "b0", 1, "a")
    for one in urgent:
        assert await under_way(under_test, 3, one.job_id, tenant="u") == []
    await database.grant_slots("a", 3)
    assert await under_test.whose() == []  # only recognizers on our own machines are overtaken

    traffic = await database.grant_slots("a", 3, overtaking=True)

    assert (traffic.under_way, traffic.queued) == (3, 4)
    assert await due_jobs(under_test) == ["u1", "u2"]
    assert [await database.begin("u", one.job_id, 1, "a") for one in urgent] == [True, True]
    assert [await database.begin("t", f"b{n}", 1, "a") for n in range(5)] == [True, False, False, False, False]
    places = [await database.queue_position("t", f"b{n}", 1, "a") for n in range(5)]
    assert places == [None, 1, 2, 3, 4]  # at their old places
    for number, left in ((1, "b0"), (2, "b1")):
        await database.commit([changed("a", 0, left, state="done")])
        await database.grant_slots("a", 3, overtaking=True)
        assert await database.begin("t", f"b{number}", 1, "a")


async def test_those_that_have_a_slot_are_placed_by_urgency_and_none_overtakes_its_like(under_test):
    database = under_test.database
    await asking(
        under_test, *(waiting(f"b{n}", priority=7) for n in range(4)), waiting("u1", "u", 8), waiting("v", "v", 7)
    )
    await under_way(under_test, 4, "b0", "b1", "b2", "b3")
    await database.begin("t", "b0", 1, "a")
    for tenant, job_id in (("u", "u1"), ("v", "v")):
        await under_way(under_test, 4, job_id, tenant=tenant)
    for _ in range(3):
        await database.grant_slots("a", 4, overtaking=True)

    keys = ("t", "b1"), ("t", "b2"), ("t", "b3"), ("u", "u1"), ("v", "v")
    places = {job_id: await database.queue_position(tenant, job_id, 1, "a") for tenant, job_id in keys}
    assert places == {"u1": 1, "b1": 2, "b2": 3, "v": 4, "b3": 5}  # v has no slot yet, and t three


async def test_nothing_is_overtaken_by_what_has_no_event_yet(under_test):
    database = under_test.database
    await asking(under_test, waiting("b0"))
    await database.commit([created(waiting("u1", "u", 9), "a")])
    await under_way(under_test, 1, "b0")
    await under_way(under_test, 1, "u1", tenant="u")

    await database.grant_slots("a", 1, overtaking=True)

    assert await database.begin("t", "b0", 1, "a")


async def test_what_has_ended_or_is_unknown_does_not_begin_and_what_has_no_limits_does(under_test):
    database = under_test.database
    await asking(under_test, waiting("p"), waiting("free"))
    await under_way(under_test, 1, "p")
    await database.commit([moved("failed", job_id="p")])

    assert not await database.begin("t", "p", 1, "a")
    assert not await database.begin("t", "never", 1, "a")
    assert await database.begin("t", "free", 1, "a")
    assert await database.begin("t", "free", 1, "a")  # again, after its worker died
