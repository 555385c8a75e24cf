"""Every way out of the committer: a step is stored, or what it brings for that case, or it is said that nothing is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import pytest

from agents.runtime import group_commit as committing
from agents.runtime.group_commit import Committer
from agents.runtime.stage import Stage, failed_job, step
from schemas import topics
from schemas.envelope import Record
from schemas.errors import Contended, StorageRefused, Unavailable
from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import Job
from schemas.jobs.transitions import Written
from sinks.memory.database import MemoryDatabase


@dataclass
class Faulty(MemoryDatabase):
    """Refuses transactions with steps of which `fault` says so; counts transactions."""

    fault: Callable[[Step], Exception | None] = lambda _: None
    transactions: list[int] = field(default_factory=list)

    async def commit(self, steps: Sequence[Step]) -> list[Written | None]:
        await asyncio.sleep(0)
        self.transactions.append(len(steps))
        for one in steps:
            if (exc := self.fault(one)) is not None:
                raise exc
        return await super().commit(steps)


def created(number: int) -> Step:
    job = Job(tenant_id="t", job_id=f"j{number}", filename="a.wav", audio_uri="file:///a.wav", status="reconciling")
    return Step("intake", uuid4(), Outcome(tenant_id="t", job_id=job.job_id, create=job))


async def moved(number: int) -> Step:
    """A step of `reconcile` that moves a job on, with everything that `agents.runtime.stage.step` gives it."""

    async def handle(envelope):
        progress = Progress(run=1, status="persisting", stage="reconcile", step=StepState(state="done"))
        return Outcome(tenant_id="t", job_id=f"j{number}", progress=progress)

    give_up = partial(failed_job, "reconcile")
    stage = Stage("reconcile", (topics.RESULTS,), topics.RECONCILE_DUE, handle, give_up)
    value = b'{"tenant_id":"t","job_id":"j%d","run":1,"provider":"a","status":"ok"}' % number
    return await step(stage, Record("asr.results", 0, number, b"j", value))


def about(number: int) -> Callable[[Step], bool]:
    return lambda one: one.outcome.job_id == f"j{number}"


def completed(one: Step) -> bool:
    return one.outcome.progress is not None and one.outcome.progress.status == "persisting"


async def commit_all(database: MemoryDatabase, steps: Sequence[Step], **more) -> list[Step]:
    committer = Committer(database, **more)
    try:
        return await asyncio.wait_for(asyncio.gather(*map(committer.commit, steps)), 10)
    finally:
        await committer.close()


def terminal(database: MemoryDatabase) -> list[str]:
    return [m.key.decode() for _, m in database.outbox if m.topic == "job.failed"]


def letters(database: MemoryDatabase) -> int:
    return sum(m.topic.endswith(".dlq") for _, m in database.outbox)


async def test_one_refused_step_in_two_hundred_ends_its_job_and_costs_the_others_little():
    database = Faulty()
    await database.commit([created(n) for n in range(200)])
    database.fault = lambda one: StorageRefused("no room for this") if about(117)(one) and completed(one) else None
    database.transactions.clear()
    stored = await commit_all(database, [await moved(n) for n in range(200)])

    statuses = [(await database.job("t", f"j{n}")).status for n in range(200)]
    assert statuses.count("persisting") == 199
    assert statuses[117] == "failed"
    assert terminal(database) == ["j117"]
    assert letters(database) == 1
    assert len(database.transactions) < 25
    assert [one.outcome.audit for one in stored].count("failed") == 1


@pytest.mark.parametrize("broken", [StorageRefused("a value"), ValueError("a bug in advance")])
async def test_each_refusal_is_answered_with_something_simpler_down_to_the_dead_letter(broken):
    for refused in range(1, 6):
        database, tries, abandoned = Faulty(), [], []
        await database.commit([created(1)])
        database.fault = lambda one, tries=tries, refused=refused: (
            tries.append(one) or broken if len(tries) < refused else None
        )
        await commit_all(database, [await moved(1)], abandoned=abandoned.append)

        status = (await database.job("t", "j1")).status
        assert (status, terminal(database), letters(database), len(abandoned)) == {
            1: ("failed", ["j1"], 1, 0),
            2: ("failed", ["j1"], 1, 0),
            3: ("failed", ["j1"], 1, 0),
            4: ("reconciling", [], 1, 0),
            5: ("reconciling", [], 0, 1),
        }[refused]


async def test_where_the_record_of_an_abandoned_step_is_is_logged(caplog):
    database = Faulty(fault=lambda _: StorageRefused("everything"))
    with caplog.at_level(logging.CRITICAL):
        await commit_all(database, [await moved(5)])

    assert "asr.results/0/5" in caplog.text


async def test_the_database_may_be_away_for_a_while(monkeypatch):
    monkeypatch.setattr(committing, "backoff_s", lambda _: 0.01)
    database, away = Faulty(), [Unavailable("away")] * 5
    database.fault = lambda _: away.pop() if away else None
    await commit_all(database, [created(n) for n in range(3)])

    assert [(await database.job("t", f"j{n}")).status for n in range(3)] == ["reconciling"] * 3


async def test_a_deadlock_is_over_at_the_second_try(monkeypatch):
    monkeypatch.setattr(committing, "backoff_s", lambda _: 0.01)
    database, deadlock = Faulty(), [Contended("deadlock")]
    database.fault = lambda _: deadlock.pop() if deadlock else None
    await commit_all(database, [created(n) for n in range(8)])

    assert database.transactions == [8, 8]


async def test_a_locked_row_keeps_its_own_step_waiting_and_no_other(monkeypatch, caplog):
    monkeypatch.setattr(committing, "backoff_s", lambda _: 0.01)
    database = Faulty()
    await database.commit([created(n) for n in range(50)])
    locked = {"j7", "j31"}
    database.fault = lambda one: Contended("a lock") if one.outcome.job_id in locked else None
    committer = Committer(database)
    tasks = [asyncio.create_task(committer.commit(await moved(n))) for n in range(50)]
    with caplog.at_level(logging.WARNING):
        done, waiting = await asyncio.wait(tasks, timeout=1)
    late = asyncio.create_task(committer.commit(created(51)))
    await asyncio.wait_for(late, 1)

    assert (len(done), len(waiting)) == (48, 2)
    assert committer.oldest_s >= 1
    assert "steps wait" in caplog.text
    locked.clear()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert {(await database.job("t", f"j{n}")).status for n in range(50)} == {"persisting"}
    assert committer.oldest_s == 0
    await committer.close()


async def test_a_locked_step_that_turns_out_to_be_refused_ends_its_job(monkeypatch):
    monkeypatch.setattr(committing, "backoff_s", lambda _: 0.01)
    database = Faulty()
    await database.commit([created(1)])
    faults: list[Exception] = [StorageRefused("no"), Contended("a"), Contended("b"), Contended("c")]
    database.fault = lambda _: faults.pop() if faults else None
    await commit_all(database, [await moved(1)])

    assert terminal(database) == ["j1"]


async def test_closing_leaves_what_is_not_stored_unacked():
    database = Faulty(fault=lambda _: Contended("for ever"))
    committer = Committer(database)
    waiting = asyncio.create_task(committer.commit(created(1)))
    await asyncio.sleep(0.05)
    await committer.close()

    assert not waiting.done()
    waiting.cancel()
