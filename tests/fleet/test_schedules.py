"""Schedules in a fleet: documents are made again at their times, of the jobs that they are about, once a time."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from agents.stages.enrichments import document
from agents.upkeep import scheduler
from agents.upkeep.scheduler import LEASE_S, Scheduler
from schemas.accounts.schedules import Schedule
from schemas.errors import Unavailable
from sinks.memory.reader import MemoryReader
from tests.contract.databases.api.test_schedules import ID
from tests.fleet.conftest import FakeRecognizer, enriching


@pytest.fixture
async def scenario(make_scenario):
    """A fleet that makes documents."""
    it = make_scenario(FakeRecognizer("a"), enrichments=("document",))
    stage = await document.SPEC.open(enriching(it.store, it.fleet.database))
    it.fleet.stages = [*it.fleet.stages, stage]
    return it


@pytest.fixture
def database(scenario):
    return scenario.fleet.database


@pytest.fixture
def scheduling(database):
    return Scheduler(database, MemoryReader(database), ("document",))


async def uploaded(scenario, many, **more):
    for n in range(many):
        await scenario.upload(None, reference=f"{more.get('metadata', {}).get('team', 'r')}{n}", **more)
    await scenario.fleet.run()


async def schedule(scenario, hours=1.0, **more):
    """A schedule whose next time is so many hours ahead."""
    due_at = scenario.fleet.clock() + timedelta(hours=hours)
    fields = {"name": "n", "cron": "0 3 * * *", "timezone": "UTC", "enrichment": "document", "jobs": {}}
    await scenario.fleet.database.add_schedule(
        Schedule(tenant_id="t", schedule_id=ID, created_by="k", due_at=due_at, **fields | more)
    )


async def carried_out(scenario, scheduling):
    """All turns until nothing is due; how many there were."""
    turns = 0
    while await scheduling.turn():
        turns += 1
        scenario.fleet.clock.advance(2)
    await scenario.fleet.run(until=timedelta(minutes=5))
    return turns


def documents(scenario):
    return Counter(event["reference"] for event in scenario.fleet.events("document.generated"))


async def test_documents_are_made_again_when_the_time_has_come(scenario, database, scheduling):
    await uploaded(scenario, 2)
    await uploaded(scenario, 2, metadata={"team": "7"})
    await schedule(scenario, jobs={"metadata": {"team": "7"}})
    assert not await scheduling.turn()
    scenario.fleet.clock.advance(3600)
    await carried_out(scenario, scheduling)

    assert documents(scenario) == {"r0": 1, "r1": 1, "70": 2, "71": 2}
    stored = await database.schedule("t", ID)
    assert (stored.last_asked, stored.last_error) == (2, None)
    assert (stored.due_at.hour, stored.due_at > scenario.fleet.clock()) == (3, True)
    ids = {record.header("ce_id") for record in scenario.fleet.log["document.generated"]}
    assert len(ids) == 6
    assert {event["generation"] for event in scenario.fleet.events("document.generated")} == {1, 2}


async def test_a_kill_after_any_page_asks_for_nothing_twice(scenario, database, scheduling, monkeypatch):
    monkeypatch.setattr(scheduler, "PAGE", 2)
    await uploaded(scenario, 5)
    await schedule(scenario)
    scenario.fleet.clock.advance(3600)
    write, died = database.continue_tick, set()

    async def dies_once(claim, after, asked, pause_s):
        if after not in died:
            died.add(after)
            raise Unavailable("killed before it was written")
        await write(claim, after, asked, pause_s)

    database.continue_tick = dies_once
    for _ in range(2):
        with pytest.raises(Unavailable):
            await scheduling.turn()
        await scenario.fleet.run(until=timedelta(seconds=5))
        assert not await scheduling.turn()  # the dead worker's claim holds
        scenario.fleet.clock.advance(LEASE_S)
        assert await scheduling.turn()
        scenario.fleet.clock.advance(2)
    await carried_out(scenario, scheduling)

    assert set(documents(scenario).values()) == {2}
    assert len(documents(scenario)) == 5


async def test_times_that_were_missed_are_made_up_for_once(scenario, database, scheduling):
    await uploaded(scenario, 1)
    await schedule(scenario)
    scenario.fleet.clock.advance(5 * 86_400)
    await carried_out(scenario, scheduling)

    assert documents(scenario) == {"r0": 2}
    assert (await database.schedule("t", ID)).due_at > scenario.fleet.clock()


async def test_a_job_that_is_uploaded_after_the_time_is_left_for_the_next(scenario, scheduling):
    await schedule(scenario, hours=0)
    scenario.fleet.clock.advance(60)
    await uploaded(scenario, 1)
    await carried_out(scenario, scheduling)

    assert documents(scenario) == {"r0": 1}


async def test_a_kind_that_is_made_no_more_is_told(scenario, database):
    await uploaded(scenario, 1)
    await schedule(scenario, hours=0)
    await carried_out(scenario, Scheduler(database, MemoryReader(database), ()))

    assert documents(scenario) == {"r0": 1}
    assert "document is not made here" in (await database.schedule("t", ID)).last_error
