"""What every database must do with call rates and pauses; see `sinks.ports.providers.limits`."""

from __future__ import annotations

import asyncio

import pytest


async def test_calls_are_reserved_one_after_the_other_and_not_within_a_pause(under_test):
    database = under_test.database
    first, second = await database.reserve_calls("a", 10, 0.5), await database.reserve_calls("a", 1, 0.5)

    assert first == pytest.approx(0, abs=0.2)
    assert second == pytest.approx(5, abs=0.5)
    await database.provider_failed("a", 60.0)
    assert await database.reserve_calls("a", 1, 0.5) == pytest.approx(60, abs=1)
    assert await database.reserve_calls("another", 1, 0.5) == pytest.approx(0, abs=0.2)


async def test_calls_that_are_about_to_be_made_are_spaced_in_a_short_queue(under_test):
    database = under_test.database
    await database.reserve_calls("a", 100, 0.5)  # moments later on are another matter
    first, second, third = [await database.space_calls("a", calls, 4.0, 5.0) for calls in (1, 2, 1)]

    assert first == pytest.approx(0, abs=0.2)
    assert second == pytest.approx(4, abs=0.8)
    assert third is None
    assert await database.space_calls("another", 1, 4.0, 5.0) == pytest.approx(0, abs=0.2)


async def test_several_failures_in_a_row_make_a_pause(under_test):
    database = under_test.database
    for _ in range(4):
        await database.provider_failed("a", None)
    assert (await database.grant_slots("a", None)).paused_until is None
    await database.provider_failed("a", None)

    traffic = await database.grant_slots("a", None)

    assert traffic.failures == 5
    assert 0 < (traffic.paused_until - await database.now()).total_seconds() <= 1
    await database.provider_succeeded("a")
    assert (await database.grant_slots("a", None)).failures == 0


async def paused_s(under_test) -> float:
    traffic = await under_test.database.grant_slots("a", None)
    return (traffic.paused_until - await under_test.database.now()).total_seconds() if traffic.paused_until else 0.0


async def test_what_fails_within_a_pause_is_not_counted_and_may_ask_for_more(under_test):
    database = under_test.database
    await database.provider_failed("a", 5.0)
    for _ in range(50):
        await database.provider_failed("a", None)

    assert (await database.grant_slots("a", None)).failures == 1
    assert await paused_s(under_test) == pytest.approx(5, abs=1)
    await database.provider_failed("a", 30.0)
    assert await paused_s(under_test) == pytest.approx(30, abs=1)


async def test_a_provider_that_refuses_again_after_each_pause_it_asked_for_is_given_longer_ones(under_test):
    database = under_test.database
    for _ in range(4):
        await database.provider_failed("a", 0.01)
        await asyncio.sleep(0.02)

    least_s, most_s = await pause_after_a_failure(under_test)
    assert least_s <= 1.5
    assert most_s >= 0.5
    await asyncio.sleep(max(0.0, await paused_s(under_test)) + 0.05)
    least_s, most_s = await pause_after_a_failure(under_test)
    assert least_s <= 2.5
    assert most_s >= 1.5


async def pause_after_a_failure(under_test) -> tuple[float, float]:
    """At least and at most so many seconds, however late the answers come."""
    database = under_test.database
    before = await database.now()
    await database.provider_failed("a", 0.01)
    after, until = await database.now(), (await database.grant_slots("a", None)).paused_until
    return (until - after).total_seconds(), (until - before).total_seconds()
