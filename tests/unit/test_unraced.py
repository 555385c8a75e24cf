"""Deliveries that complete at once are not raced against the app's end; others are."""

from __future__ import annotations

import asyncio

import pytest
from mode import Service

from agents.runtime.offsets import DELIVERIES_PER_YIELD, Unraced


class Probe(Unraced, Service):
    """A service, with nothing in it."""


async def nothing() -> int:
    return 1


async def test_what_ends_at_once_starts_no_task() -> None:
    probe, never = Probe(), asyncio.Event()
    before = asyncio.all_tasks()
    contenders = nothing(), never.wait()
    race = probe.wait_first(*contenders)
    with pytest.raises(StopIteration):
        race.send(None)  # it ended in its first step
    assert asyncio.all_tasks() == before


async def test_other_tasks_run_between_many_deliveries() -> None:
    probe, turns = Probe(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(other())
    for _ in range(10 * DELIVERIES_PER_YIELD):
        await probe.wait_first(nothing(), asyncio.Event().wait())
    beside.cancel()
    assert 9 <= turns <= 10


async def test_what_waits_goes_on_where_it_stopped() -> None:
    probe, steps = Probe(), list[str]()
    opened, never = asyncio.Event(), asyncio.Event()

    async def delivery() -> str:
        steps.append("begun")
        await opened.wait()
        await asyncio.sleep(0)
        steps.append("done")
        return "delivered"

    race = asyncio.create_task(probe.wait_first(delivery(), never.wait()))
    await asyncio.sleep(0.01)
    assert steps == ["begun"]
    opened.set()
    assert (await race).results == ["delivered"]
    assert steps == ["begun", "done"]


async def test_the_end_of_the_flow_ends_a_delivery_that_waits() -> None:
    probe, suspended, cleaned = Probe(), asyncio.Event(), list[bool]()

    async def delivery() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    race = asyncio.create_task(probe.wait_first(delivery(), suspended.wait()))
    await asyncio.sleep(0.01)
    suspended.set()
    await race
    await asyncio.sleep(0)
    assert cleaned == [True]


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_is_raised(waits: bool) -> None:
    async def delivery() -> None:
        if waits:
            await asyncio.sleep(0.01)
        raise LookupError

    with pytest.raises(LookupError):
        await Probe().wait_first(delivery(), asyncio.Event().wait())
