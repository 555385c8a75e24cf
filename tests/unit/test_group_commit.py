"""How the committer forms transactions: what shares one, what is halved, what waits apart, and what cancelling does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

import pytest

from agents.runtime import group_commit
from agents.runtime.group_commit import APART, BATCH, Committer
from schemas.errors import Contended, StorageRefused, Unavailable
from schemas.jobs.outcome import Outcome, Step


def step(number: int) -> Step:
    return Step("intake", uuid4(), Outcome(tenant_id="t", job_id=f"j{number}"))


def number(step: Step) -> int:
    return int(step.outcome.job_id[1:])


@dataclass
class Database:
    """As much of a database as a committer asks for: transactions take until `open`, and fail as `fault` says."""

    fault: Callable[[Step], Exception | None] = lambda _: None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    #: The numbers of the steps of each transaction, in the order in which they began; and of those that were stored.
    begun: list[list[int]] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def commit(self, steps: Sequence[Step]) -> list[None]:
        self.begun.append(list(map(number, steps)))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        if (exc := next(filter(None, map(self.fault, steps)), None)) is not None:
            raise exc
        self.stored += map(number, steps)
        return [None] * len(steps)


@pytest.fixture
def database():
    """Transactions take no time unless the test clears `open`."""
    it = Database()
    it.open.set()
    return it


@pytest.fixture
async def committer(database, monkeypatch):
    monkeypatch.setattr(group_commit, "backoff_s", lambda _: 0.0)
    it = Committer(database)
    yield it
    await it.close()


async def settled(turns: int = 50) -> None:
    """Let everything run that waits for nothing but its turn."""
    for _ in range(turns):
        await asyncio.sleep(0)


def begin(committer: Committer, *numbers: int) -> list[asyncio.Task[Step]]:
    return [asyncio.create_task(committer.commit(step(n))) for n in numbers]


async def finish(*tasks: asyncio.Task[Step]) -> list[Step]:
    return await asyncio.wait_for(asyncio.gather(*tasks), 5)


async def test_steps_that_come_during_a_transaction_share_the_next_one_in_their_order(database, committer):
    database.open.clear()
    first = begin(committer, 0)
    await settled()
    others = begin(committer, 1, 2, 3)
    await settled()
    assert database.begun == [[0]]

    database.open.set()
    stored = await finish(*first, *others)

    assert database.begun == [[0], [1, 2, 3]]
    assert list(map(number, stored)) == [0, 1, 2, 3]


async def test_a_transaction_has_a_bounded_number_of_steps(database, committer):
    await finish(*begin(committer, *range(2 * BATCH + 1)))

    assert list(map(len, database.begun)) == [BATCH, BATCH, 1]
    assert database.stored == list(range(2 * BATCH + 1))


async def test_a_step_that_comes_after_everything_was_stored_is_stored_too(database, committer):
    await finish(*begin(committer, 0))
    await settled()
    await finish(*begin(committer, 1))

    assert database.stored == [0, 1]


async def test_a_batch_is_halved_until_the_refused_step_is_alone_and_the_others_keep_their_order(database, committer):
    database.fault = lambda step: StorageRefused("a value") if number(step) == 5 else None
    await finish(*begin(committer, *range(8)))

    assert database.begun == [[*range(8)], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]
    assert database.stored == [0, 1, 2, 3, 4, 6, 7]


async def test_an_absence_in_the_middle_of_halving_is_waited_out(database, committer):
    absences = [Unavailable("away"), Unavailable("away")]

    def fault(step: Step) -> Exception | None:
        if number(step) == 1:
            return StorageRefused("a value")
        return absences.pop() if number(step) == 3 and len(database.begun) > 2 and absences else None

    database.fault = fault
    await finish(*begin(committer, 0, 1, 2, 3))

    assert sorted(database.stored) == [0, 2, 3]


async def test_a_caller_that_is_cancelled_keeps_neither_its_step_nor_others_from_being_stored(database, committer):
    database.open.clear()
    tasks = begin(committer, 0, 1, 2)
    await settled()
    tasks[1].cancel()
    await settled()
    database.open.set()
    await finish(tasks[0], tasks[2])

    assert tasks[1].cancelled()
    assert database.stored == [0, 1, 2]
    assert committer.oldest_s == 0
    assert await finish(*begin(committer, 3)), "the committer goes on"


async def test_of_steps_with_locked_rows_few_are_tried_at_once(database, committer):
    locked = set(range(10))
    database.fault = lambda step: Contended("a lock") if number(step) in locked else None
    tasks = begin(committer, *range(10))
    while len(committer._apart) < 10:  # all of them are apart before the first is tried again
        await asyncio.sleep(0)
    database.open.clear()
    database.most = 0
    await settled()
    assert database.most == APART

    locked.clear()
    database.open.set()
    await finish(*tasks)
    assert sorted(database.stored) == list(range(10))


async def test_a_locked_step_outlasts_an_absence_of_the_database(database, committer):
    faults = [Unavailable("away"), Contended("a lock"), Contended("a lock"), Contended("a lock")]
    database.fault = lambda _: faults.pop() if faults else None
    await finish(*begin(committer, 0))

    assert database.stored == [0]


async def test_a_locked_step_whose_caller_is_cancelled_is_not_tried_for_ever(database, committer):
    database.fault = lambda _: Contended("a lock")
    [task] = begin(committer, 0)
    while not committer._apart:
        await asyncio.sleep(0)
    task.cancel()
    await settled()

    assert committer._apart == set()
    tries = len(database.begun)
    await settled()
    assert len(database.begun) == tries


async def test_a_step_whose_replacement_cannot_be_made_is_reported_and_done(database, monkeypatch, caplog):
    def broken(_: Exception) -> Step:
        raise RuntimeError("a bug")

    abandoned: list[Step] = []
    committer = Committer(database, abandoned.append)
    database.fault = lambda step: StorageRefused("a value") if number(step) == 0 else None
    refused = replace(step(0), otherwise=broken)
    with caplog.at_level(logging.ERROR):
        stored = await finish(asyncio.create_task(committer.commit(refused)), *begin(committer, 1))
    await committer.close()

    assert abandoned == [refused]
    assert list(map(number, stored)) == [0, 1]
    assert "a bug" in caplog.text


async def test_that_steps_wait_is_logged_with_their_number_and_not_at_each_try(database, committer, caplog):
    absences = [Unavailable("the server is away")] * 20
    database.fault = lambda _: absences.pop() if absences else None
    with caplog.at_level(logging.WARNING):
        await finish(*begin(committer, 0, 1, 2))

    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("3 steps wait")
    assert "the server is away" in line


async def test_closing_in_the_middle_of_a_transaction_ends_it_and_acknowledges_nothing(database, committer):
    database.open.clear()
    tasks = begin(committer, 0, 1)
    await settled()
    begin_late = begin(committer, 2)
    await settled()
    await committer.close()
    database.open.set()
    await settled()

    assert database.running == 0
    assert (database.begun, database.stored) == ([[0, 1]], [])
    assert not any(task.done() for task in (*tasks, *begin_late))
    for task in (*tasks, *begin_late):
        task.cancel()


async def test_after_closing_a_locked_step_is_not_tried_any_more(database, committer):
    database.fault = lambda _: Contended("a lock")
    [task] = begin(committer, 0)
    while not committer._apart:
        await asyncio.sleep(0)
    await committer.close()
    tries = len(database.begun)
    await settled()

    assert len(database.begun) == tries
    assert not task.done()
    task.cancel()
