"""Work under a lease: it has one holder, outlives the call that began it, and leaves a slot for each share."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from typing import Any

import pytest

from agents.runtime import leased_tasks
from agents.runtime.in_memory import Clock
from agents.runtime.leased_tasks import LeasedTasks
from schemas.errors import Unavailable
from sinks.memory.database import MemoryDatabase

#: Seconds that a lease lasts here, by the database's clock, which the tests move; it is renewed each third of that by
#: the event loop's clock, which they do not.
LEASE_S = 0.03


@dataclass
class Leases(MemoryDatabase):
    """The double, whose leases can be away; counts how often they were asked for, and for which keys."""

    away: bool = False
    asked: int = 0
    keys: set[str] = field(default_factory=set)
    #: Until this is set, asking for a lease takes.
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        self.asked += 1
        self.keys.add(key)
        await self.open.wait()
        if self.away:
            raise Unavailable("PostgreSQL is away")
        return await super().lease(key, holder, seconds)


class Work:
    """Work that ends when the test says so, with a result or an error."""

    def __init__(self) -> None:
        self.begun, self.cancelled = 0, 0
        self._end: asyncio.Event = asyncio.Event()
        self.result: object = "done"
        self.report = lambda _: None

    async def __call__(self, progress) -> object:
        self.begun += 1
        self.report = progress
        try:
            await self._end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def end(self, result: object = "done") -> None:
        self.result = result
        self._end.set()


async def quick(_) -> str:
    return "quick"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def database(clock):
    it = Leases(clock=clock)
    it.open.set()
    return it


@pytest.fixture
async def worker(database, monkeypatch):
    """A function that makes a worker process' tasks; all have ended when the test has."""
    monkeypatch.setattr(leased_tasks, "LEASE_S", LEASE_S)
    built: list[LeasedTasks] = []

    def build(holder: str = "here", limit: int = 8) -> LeasedTasks:
        built.append(LeasedTasks(database, holder, limit))
        return built[-1]

    yield build
    database.away = False
    for one in built:
        await one.close()


async def renewed() -> None:
    """Wait until leases have been renewed at least once."""
    await asyncio.sleep(LEASE_S)


async def test_work_that_ends_in_time_has_its_result_at_once_and_its_lease_is_free(worker):
    here, elsewhere = worker(), worker("elsewhere")

    assert await here.run("k", quick, 1) == "quick"
    assert (here.progress("k"), here.free) == (None, 8)
    assert await elsewhere.run("k", quick, 1) == "quick"


async def test_longer_work_goes_on_and_gives_its_result_to_a_later_call_once(worker):
    here, work = worker(), Work()
    assert await here.run("k", work, 0.001) is None
    work.report(0.4)
    assert here.progress("k") == pytest.approx(0.4)
    assert await here.run("k", work, 0.001) is None

    work.end("result")

    assert await here.run("k", work, 1) == "result"
    assert work.begun == 1
    assert await here.run("k", quick, 1) == "quick"


@pytest.mark.parametrize(("share", "progress"), [(-1.0, 0.0), (0.5, 0.5), (7.0, 1.0)])
async def test_progress_is_a_share(worker, share, progress):
    here, work = worker(), Work()
    await here.run("k", work, 0.001)
    work.report(share)

    assert here.progress("k") == progress


async def test_what_work_raises_is_raised_to_the_next_call_once(worker):
    here, work = worker(), Work()
    await here.run("k", work, 0.001)
    work.end(ValueError("no recording"))

    with pytest.raises(ValueError, match="no recording"):
        await here.run("k", work, 1)
    assert await here.run("k", quick, 1) == "quick"


async def test_an_error_that_no_call_asks_for_is_not_reported_as_lost(worker, monkeypatch):
    monkeypatch.setattr(leased_tasks, "KEEP_S", 0.0)
    here, work, lost = worker(), Work(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    await here.run("k", work, 0.001)
    work.end(ValueError("no recording"))
    await renewed()
    assert here._tasks == {}
    del work  # which refers to the task by its error and its progress
    gc.collect()

    assert lost == []


async def test_work_that_was_cancelled_from_within_has_no_result_and_can_be_done_again(worker):
    here, work = worker(), Work()
    await here.run("k", work, 0.001)
    work.end(asyncio.CancelledError())

    assert await here.run("k", work, 1) is None
    assert await here.run("k", quick, 1) == "quick"


async def test_a_call_that_is_cancelled_leaves_the_work_alone(worker):
    here, work = worker(), Work()
    call = asyncio.create_task(here.run("k", work, 10))
    while not work.begun:
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    work.end("result")

    assert work.cancelled == 0
    assert await here.run("k", work, 1) == "result"


async def test_one_key_is_worked_on_once_however_many_ask(worker, database):
    here, work = worker(), Work()
    database.open.clear()
    calls = [asyncio.create_task(here.run("k", work, 1)) for _ in range(3)]
    while database.asked < 3:
        await asyncio.sleep(0)
    database.open.set()
    while not work.begun:
        await asyncio.sleep(0)
    work.end("result")

    assert await asyncio.gather(*calls) == ["result"] * 3
    assert work.begun == 1


async def test_what_another_worker_holds_is_not_begun(worker):
    here, elsewhere, work, second = worker(), worker("elsewhere"), Work(), Work()
    await elsewhere.run("k", work, 0.001)

    assert await here.run("k", second, 0.01) is None
    assert second.begun == 0
    assert here.free == 8


async def test_a_lease_is_renewed_as_long_as_the_work_takes(worker, clock):
    here, elsewhere, work = worker(), worker("elsewhere"), Work()
    await here.run("earlier", quick, 1)
    await renewed()  # and nothing is left to be renewed
    await here.run("k", work, 0.001)
    for _ in range(3):
        clock.advance(LEASE_S * 0.9)
        await renewed()

    assert await elsewhere.run("k", quick, 0.01) is None
    assert work.cancelled == 0


async def test_a_worker_whose_lease_ran_out_is_followed_by_another_and_stops(worker, clock, caplog):
    here, elsewhere, work, second = worker(), worker("elsewhere"), Work(), Work()
    await here.run("k", work, 0.001)
    clock.advance(LEASE_S + 1)  # nothing was renewed: the process stood still
    await elsewhere.run("k", second, 0.001)
    await renewed()

    assert (work.cancelled, second.begun, second.cancelled) == (1, 1, 0)
    assert (here.free, here.progress("k")) == (8, None)
    assert "the lease of k is lost" in caplog.text
    assert await here.run("k", Work(), 0.01) is None


async def test_a_database_that_is_away_does_not_end_work_and_is_asked_again(worker, database, clock):
    here, elsewhere, work = worker(), worker("elsewhere"), Work()
    await here.run("k", work, 0.001)
    database.away = True
    await renewed()
    assert work.cancelled == 0

    database.away = False
    clock.advance(LEASE_S * 0.9)
    await renewed()
    clock.advance(LEASE_S * 0.9)
    assert await elsewhere.run("k", quick, 0.01) is None
    work.end()
    assert await here.run("k", work, 1) == "done"


async def test_a_result_is_there_although_its_lease_cannot_be_given_back(worker, database):
    here, work = worker(), Work()
    await here.run("k", work, 0.001)
    work.end()

    async def release(*_) -> None:
        raise Unavailable("PostgreSQL is away")

    database.release = release
    assert await here.run("k", work, 1) == "done"


async def test_eager_work_that_is_short_asks_for_no_lease(worker, database):
    here = worker()

    assert await here.run("k", quick, 1, eager=True) == "quick"
    assert database.asked == 0


async def test_eager_work_that_is_long_takes_the_lease(worker):
    here, elsewhere, work = worker(), worker("elsewhere"), Work()

    assert await here.run("k", work, 0.001, eager=True) is None
    assert await elsewhere.run("k", quick, 0.01) is None
    work.end()
    assert await here.run("k", work, 1) == "done"


async def test_eager_work_that_turns_out_to_be_done_elsewhere_is_dropped(worker):
    here, elsewhere, work = worker(), worker("elsewhere"), Work()
    await elsewhere.run("k", Work(), 0.001)

    assert await here.run("k", work, 0.001, eager=True) is None
    await asyncio.sleep(0)
    assert (work.begun, work.cancelled, here.free) == (1, 1, 8)


async def test_closing_ends_all_work_and_gives_its_leases_back_at_once(worker):
    here, elsewhere, work, other = worker(), worker("elsewhere"), Work(), Work()
    await here.run("k", work, 0.001)
    await here.run("l", other, 0.001)
    await here.close()

    assert (work.cancelled, other.cancelled, here.free) == (1, 1, 8)
    assert here._renewing.cancelled()
    assert await elsewhere.run("k", quick, 1) == "quick"
    assert await elsewhere.run("l", quick, 1) == "quick"


async def test_no_lease_is_renewed_after_it_was_given_back(worker, database):
    here, elsewhere, release = worker(), worker("elsewhere"), database.release
    await here.run("k", Work(), 0.001)
    await here.run("l", Work(), 0.001)

    async def slowly(*lease: str) -> None:
        await release(*lease)
        await renewed()

    database.release = slowly
    await here.close()

    assert await elsewhere.run("k", quick, 1) == "quick"


async def test_a_renewal_that_is_under_way_when_closing_is_over_before_leases_are_given_back(worker, database):
    here, elsewhere, lease, renewals = worker(), worker("elsewhere"), database.lease, []
    await here.run("k", Work(), 0.001)

    async def sent_already(*of: Any) -> None:
        """Cancelled or not, PostgreSQL renews the lease a moment later."""
        renewals.append(of)
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.001)
            await lease(*of)

    database.lease = sent_already
    while not renewals:
        await asyncio.sleep(0.001)
    await here.close()
    database.lease = lease
    await renewed()

    assert await elsewhere.run("k", quick, 1) == "quick"


async def test_work_that_never_ends_keeps_its_slot_its_lease_and_its_caller_no_longer_than_asked(worker, clock):
    here, elsewhere, work = worker(limit=1), worker("elsewhere"), Work()
    for _ in range(3):
        async with asyncio.timeout(1):
            assert await here.run("k", work, 0.001) is None
        clock.advance(LEASE_S * 0.9)
        await renewed()

    assert (work.begun, here.free) == (1, 0)
    assert await here.run("other", quick, 0.001) is None
    assert await elsewhere.run("k", quick, 0.001) is None
    await here.close()
    assert await elsewhere.run("k", quick, 1) == "quick"


async def test_without_a_slot_work_is_not_begun_and_no_lease_is_taken(worker, database):
    here, work = worker(limit=1), Work()
    await here.run("k", work, 0.001)

    assert await here.run("l", quick, 0.001) is None
    assert await here.run("l", quick, 0.001, eager=True) is None
    assert database.keys == {"k"}


async def test_work_that_waits_for_a_slot_begins_as_soon_as_other_work_ends(worker):
    here, work = worker(limit=1), Work()
    await here.run("k", work, 0.001)
    waiting = asyncio.create_task(here.run("l", quick, 10))
    await asyncio.sleep(0.001)
    assert not waiting.done()
    work.end()

    assert await asyncio.wait_for(waiting, 1) == "quick"


async def test_a_result_that_no_call_has_asked_for_yet_holds_no_slot_and_is_dropped_in_the_end(worker, monkeypatch):
    monkeypatch.setattr(leased_tasks, "KEEP_S", 10 * LEASE_S)
    here, work = worker(limit=1), Work()
    await here.run("k", work, 0.001)
    work.end()
    await renewed()
    assert here.free == 1
    assert here._tasks["k"].task.done(), "the result is kept"

    monkeypatch.setattr(leased_tasks, "KEEP_S", 0.0)
    await renewed()
    assert here._tasks == {}


async def test_a_slot_that_is_lost_while_the_lease_is_asked_for_gives_the_lease_back(worker, database):
    here, elsewhere, work = worker(limit=1), worker("elsewhere"), Work()
    database.open.clear()
    call = asyncio.create_task(here.run("k", quick, 1))
    while not database.asked:
        await asyncio.sleep(0)
    eager = asyncio.create_task(here.run("l", work, 10, eager=True))  # takes the slot meanwhile
    while not work.begun:
        await asyncio.sleep(0)
    database.open.set()

    assert await call is None
    assert await elsewhere.run("k", quick, 1) == "quick"
    work.end()
    assert await eager == "done"
