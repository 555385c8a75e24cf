"""What every database must do with schedules; see `sinks.ports.api.schedules`."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from agents.upkeep import scheduler
from agents.upkeep.scheduler import Scheduler, beginning
from schemas.accounts.schedules import MAX_SCHEDULES, Schedule
from schemas.jobs.outcome import Step
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.ports.api.schedules import TooManySchedules
from sinks.ports.reads import Cursor
from sinks.postgres.reader import Reader
from tests.contract.databases.cases import created, job

ID = UUID("0b0f1f6e-0000-4000-8000-00000000000c")


def schedule(due_at, *, tenant="t", id=ID, **more) -> Schedule:
    fields = {
        "name": "nightly",
        "cron": "0 3 * * *",
        "timezone": "UTC",
        "enrichment": "document",
        "jobs": {"last_days": 30.0, "metadata": {"agent": "Zoë"}},
        "created_by": "key_1",
    }
    return Schedule(tenant_id=tenant, schedule_id=id, due_at=due_at, **fields | more)


@pytest.fixture
async def now(under_test):
    return await under_test.database.now()


async def test_a_schedule_is_its_tenants_and_is_made_once(under_test, now):
    database = under_test.database.acting_as("t")
    stored = await database.add_schedule(schedule(now))
    assert await database.add_schedule(schedule(now, name="again")) == stored
    await under_test.database.acting_as("other").add_schedule(schedule(now, tenant="other", id=uuid4()))

    assert await database.schedules("t") == [stored]
    assert await database.schedule("t", ID) == stored
    assert (stored.jobs["metadata"], stored.due_at) == ({"agent": "Zoë"}, now)
    assert await under_test.database.acting_as("other").schedule("other", ID) is None
    assert not await under_test.database.acting_as("other").delete_schedule("other", ID)
    assert await database.delete_schedule("t", ID)
    assert await database.schedules("t") == []


async def test_a_tenant_has_not_too_many(under_test, now):
    database = under_test.database.acting_as("t")
    for _ in range(MAX_SCHEDULES):
        await database.add_schedule(schedule(now, id=uuid4()))
    with pytest.raises(TooManySchedules):
        await database.add_schedule(schedule(now))


async def test_one_worker_has_a_schedule_until_its_claim_lapses(under_test, now):
    database = under_test.database
    await database.add_schedule(schedule(now - timedelta(seconds=9)))
    await database.add_schedule(schedule(now + timedelta(hours=1), id=uuid4()))
    claims = await asyncio.gather(*[database.claim_schedule(0.3) for _ in range(5)])
    [first] = [claim for claim in claims if claim is not None]
    await asyncio.sleep(0.35)
    second = await database.claim_schedule(60)

    assert (first.schedule_id, second.schedule_id, second.token) == (ID, ID, first.token + 1)
    await database.end_tick(first, now + timedelta(days=1), 7)
    assert (await database.schedule("t", ID)).due_at == first.due_at


async def test_a_tick_goes_on_where_it_was_and_then_waits_for_the_next(under_test, now):
    database = under_test.database
    await database.add_schedule(schedule(now - timedelta(seconds=9)))
    claim = await database.claim_schedule(60)
    await database.continue_tick(claim, Cursor(now, "j"), 100, 0.0)
    claim = await database.claim_schedule(60)
    assert (claim.after_created_at, claim.after_job, claim.asked) == (now, "j", 100)

    following = now + timedelta(days=1)
    await database.end_tick(claim, following, 17, "half of it")
    assert await database.claim_schedule(60) is None
    ended = await database.schedule("t", ID)
    assert (ended.due_at, ended.after_job, ended.asked) == (following, None, 0)
    assert (ended.last_tick_at, ended.last_asked, ended.last_error) == (claim.due_at, 117, "half of it")


async def test_schedules_poll_claims(under_test, now):
    database = under_test.database
    for n in range(2):
        await database.add_schedule(schedule(now - timedelta(seconds=9 - n), id=uuid4(), name=str(n)))
    names = []
    for _ in range(4):
        claim = await database.claim_schedule(60)
        names.append(claim.name)
        await database.continue_tick(claim, Cursor(now, "j"), 1, 0.0)

    assert names == ["0", "1", "0", "1"]


class Killed(Exception):
    """Of the worker, at this moment."""


@pytest.mark.parametrize("point", ["schedule.claimed", "schedule.asked"])
async def test_a_worker_that_is_killed_at_every_page_asks_for_each_job_once(under_test, now, monkeypatch, point):
    database = under_test.database
    is_memory = isinstance(database, MemoryDatabase)
    reads = MemoryReader(database) if is_memory else Reader(under_test.pool)
    monkeypatch.setattr(scheduler, "PAGE", 2)
    monkeypatch.setattr(scheduler, "PAUSE_S", 0.0)
    monkeypatch.setattr(scheduler, "LEASE_S", 0.05)
    await database.commit([created(job(f"j{n}", status="completed")) for n in range(5)])
    due_at = await database.now()
    await database.add_schedule(schedule(due_at, jobs={}))

    def dies(passed: str) -> None:
        if passed == point:
            raise Killed

    turns = 0
    while (await database.schedule("t", ID)).last_tick_at is None:
        with contextlib.suppress(Killed):
            await Scheduler(database, reads, ("document",), passing=dies).turn()
        await asyncio.sleep(0.06)
        await Scheduler(database, reads, ("document",)).turn()
        turns += 1

    assert turns == 3
    assert (await database.schedule("t", ID)).last_asked == 5
    asked = [id for topic, id in await under_test.outbox() if topic == "document.due"]
    assert len(asked) == len(set(asked)) == 5


async def test_a_schedule_without_a_time_is_carried_out_once_of_what_is_lacking(under_test, monkeypatch):
    database = under_test.database
    is_memory = isinstance(database, MemoryDatabase)
    reads = MemoryReader(database) if is_memory else Reader(under_test.pool)
    monkeypatch.setattr(scheduler, "PAGE", 2)
    monkeypatch.setattr(scheduler, "PAUSE_S", 0.0)
    await database.commit([created(job(f"j{n}", status="completed")) for n in range(5)])
    has_it = await database.job("t", "j1")
    await database.commit([Step("x", uuid4(), beginning(has_it, "document", "me"))])
    due_at = await database.now()
    await database.add_schedule(schedule(due_at, cron=None, jobs={"lacking": True}))
    while await Scheduler(database, reads, ("document",)).turn():
        pass

    over = await database.schedule("t", ID)
    assert (over.is_over, over.last_asked, over.due_at) == (True, 4, due_at)
    asked = [id for topic, id in await under_test.outbox() if topic == "document.due"]
    assert len(asked) == len(set(asked)) == 5


async def test_what_is_over_does_not_count_and_is_forgotten(under_test, now):
    database = under_test.database
    for n in range(MAX_SCHEDULES + 2):
        await database.add_schedule(schedule(now, id=uuid4(), cron=None, name=str(n)))
        await database.end_tick(await database.claim_schedule(60), None, 1)
    names = {one.name for one in await database.schedules("t")}

    assert len(names) == MAX_SCHEDULES
    assert {"0", "1"}.isdisjoint(names)
