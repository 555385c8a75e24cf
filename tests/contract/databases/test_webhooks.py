"""What every database must do with webhooks; see `sinks.ports.webhooks`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import asyncpg
import orjson
import pytest

from schemas import topics
from schemas.errors import StorageRefused
from schemas.events.job import JobFailed
from schemas.jobs.outcome import Later, Step
from schemas.webhooks.events import TEST, of_endpoint
from schemas.webhooks.retry import DELAYS_S
from schemas.webhooks.rows import Attempt, Endpoint
from sinks.ports.webhooks.endpoints import MAX_ENDPOINTS, OVERLAP_S, TooManyEndpoints
from sinks.ports.webhooks.queue import OF_ENDPOINT
from tests.contract.databases.cases import created, job, persisted_event

OK = Attempt(status=204, duration_ms=3.0)
REFUSED = Attempt(status=500, duration_ms=3.0, answer="no", error="answered 500")
GONE = Attempt(status=410, duration_ms=1.0, error="answered 410")
LEASE_S = 60.0


class Time:
    """Lets time pass: the double's clock goes on, PostgreSQL's rows move into the past."""

    def __init__(self, under_test) -> None:
        self._of = under_test

    async def passes(self, seconds: float) -> None:
        if not hasattr(self._of, "pool"):
            before = self._of.database.clock
            self._of.database.clock = lambda: before() + timedelta(seconds=seconds)
            return
        for table, column in (
            ("webhook_deliveries", "due_at"),
            ("webhooks", "failing_since"),
            ("webhook_secrets", "created_at"),
            ("webhook_secrets", "expires_at"),
        ):
            await self._of.pool.execute(
                f"UPDATE {table} SET {column} = {column} - $1::float8 * interval '1 second'", float(seconds)
            )


@pytest.fixture
def time(under_test):
    return Time(under_test)


@pytest.fixture
def database(under_test):
    return under_test.database


def endpoint(id="wh_1", tenant="t", events=("*",), **more) -> Endpoint:
    return Endpoint(tenant_id=tenant, webhook_id=id, url=f"https://{id}.example/", events=list(events), **more)


async def made(database, *args, secret="whsec_MQ==", **more) -> Endpoint:
    return await database.create_webhook(endpoint(*args, **more), secret)


def failed(job_id="j", tenant="t") -> Later:
    event = JobFailed(tenant_id=tenant, job_id=job_id, stage="intake", code="stuck", error="no", attempts=1)
    return Later(topics.FAILED.name, event)


async def announces(database, *jobs, tenant="t") -> None:
    """A `job.failed` of each of these jobs."""
    for id in jobs:
        await database.commit([created(job(id, tenant), later=(failed(id, tenant),))])


async def claimed(database, free=100, **held):
    return await database.claim_deliveries(held.get("tenants", {}), held.get("endpoints", {}), free, LEASE_S)


async def test_an_event_is_delivered_to_the_endpoints_of_its_tenant_that_ask_for_it(database):
    await made(database)
    await made(database, "wh_2", events=("job.failed", "job.completed"))
    await made(database, "wh_3", events=("document.generated",))
    await made(database, "wh_4", active=False)
    await made(database, "wh_5", "bolt")
    await announces(database, "j")
    claims = await claimed(database)

    assert sorted(claim.delivery.webhook_id for claim in claims) == ["wh_1", "wh_2"]
    assert len({claim.delivery.event_id for claim in claims}) == 1
    body = orjson.loads(claims[0].delivery.body)
    assert (body["type"], body["id"], body["specversion"]) == ("job.failed", claims[0].delivery.event_id, "1.0")
    assert (body["subject"], body["data"]["job_id"], body["data"]["code"]) == ("j", "j", "stuck")
    assert claims[0].secrets == ("whsec_MQ==",)
    assert "whsec" not in repr(claims[0])


async def test_a_step_that_is_committed_again_announces_nothing_new(database):
    await made(database)
    step = created(job(), later=(failed(),))
    await database.commit([step])
    await database.commit([step])

    assert len(await database.deliveries("t", "wh_1", None, None, 10)) == 1


async def test_a_transaction_that_is_refused_announces_nothing(database):
    await made(database)
    unstorable = replace(created(job("k")).outcome, error="\x00", later=(failed("k"),))
    with pytest.raises(StorageRefused):
        await database.commit([created(job(), later=(failed(),)), Step("intake", uuid4(), unstorable)])

    assert await database.deliveries("t", "wh_1", None, None, 10) == []


async def test_the_second_event_of_a_job_waits_for_the_first_and_other_jobs_do_not(database, time):
    await made(database)
    later = (failed(), Later(topics.PERSISTED.name, persisted_event()))
    await database.commit([created(job(), later=later)])
    (first,) = await claimed(database)
    await announces(database, "k")
    (other,) = await claimed(database)
    assert other.delivery.job_id == "k"
    assert await database.record_attempt(other, OK)
    assert await database.record_attempt(first, REFUSED)
    assert await claimed(database) == []
    await time.passes(6)
    (again,) = await claimed(database)
    assert again.delivery.event_id == first.delivery.event_id
    assert await database.record_attempt(again, OK)
    (second,) = await claimed(database)

    assert (first.delivery.type, second.delivery.type) == ("job.failed", "job.completed")


async def test_a_claim_that_ran_out_is_another_workers(database, time):
    await made(database)
    await announces(database, "j")
    (lost,) = await claimed(database)
    await time.passes(LEASE_S + 1)
    (taken,) = await claimed(database)

    assert not await database.record_attempt(lost, OK)
    assert await database.record_attempt(taken, OK)
    assert not await database.record_attempt(taken, OK)
    assert await database.attempts("t", taken.delivery.id) != []


async def test_a_delivery_is_tried_for_a_day_and_can_be_replayed(database, time):
    await made(database)
    await announces(database, "j")
    for delay in DELAYS_S:
        (claim,) = await claimed(database)
        assert await database.record_attempt(claim, REFUSED)
        await time.passes(delay - 1)
        assert await claimed(database) == []
        await time.passes(delay * 0.1 + 2)
    (last,) = await claimed(database)
    await database.record_attempt(last, REFUSED)
    (row,) = await database.deliveries("t", "wh_1", "failed", None, 10)
    paused = await database.webhook("t", "wh_1")

    assert row.failures == len(DELAYS_S) + 1
    assert [(a.status, a.answer, a.error) for a in await database.attempts("t", row.id)] == [
        (500, "no", "answered 500")
    ] * (len(DELAYS_S) + 1)
    assert paused.paused_at is not None
    assert "answered 500" in paused.paused_reason
    assert await database.replay("t", "wh_1", "k1") == 1
    assert await claimed(database) == []  # it is paused
    await database.update_webhook(paused, resume=True, by="k1")
    (again,) = await claimed(database)
    assert (again.delivery.event_id, again.delivery.failures) == (row.event_id, 0)


async def test_retry_after_is_obeyed_where_it_is_longer(database, time):
    await made(database)
    await announces(database, "j")
    (claim,) = await claimed(database)
    await database.record_attempt(claim, REFUSED, 100.0)
    await time.passes(90)
    assert await claimed(database) == []
    await time.passes(11)

    assert len(await claimed(database)) == 1


async def test_an_endpoint_that_is_gone_is_paused_and_the_others_are_told(database, time):
    await made(database)
    await made(database, "wh_2", events=("webhook.paused",))
    await announces(database, "j")
    (claim,) = await claimed(database)
    await database.record_attempt(claim, GONE)
    await announces(database, "k")
    (notice,) = await claimed(database)
    data = orjson.loads(notice.delivery.body)["data"]

    assert (notice.delivery.webhook_id, notice.delivery.type) == ("wh_2", "webhook.paused")
    assert (data["webhook_id"], data["reason"]) == ("wh_1", "it answered 410 Gone")
    await database.update_webhook(endpoint(), resume=True, by="k1")
    await time.passes(61)
    assert sorted(c.delivery.job_id for c in await claimed(database) if c.delivery.job_id) == ["j", "k"]


async def test_a_pause_is_told_once_though_several_attempts_find_it(database, time):
    await made(database)
    await made(database, "wh_2", events=("webhook.paused",))
    await announces(database, "j", "k")
    for claim in await claimed(database):
        await database.record_attempt(claim, GONE)

    assert len(await claimed(database)) == 1


async def test_slots_are_shared_out_among_tenants_and_endpoints(database):
    await made(database)
    await made(database, "wh_b", "bolt")
    await announces(database, *(f"j{n}" for n in range(OF_ENDPOINT + 2)))
    await announces(database, "b", tenant="bolt")

    of_both = [claim.delivery.tenant_id for claim in await claimed(database, 4)]
    assert sorted(of_both) == ["bolt", "t", "t"]  # and one slot stays free for the next tenant
    assert await claimed(database, 4, tenants={"t": 4}) == []
    assert await claimed(database, endpoints={"wh_1": OF_ENDPOINT}) == []
    assert len(await claimed(database, endpoints={"wh_1": OF_ENDPOINT - 1})) == 1


async def test_an_endpoint_that_fails_gets_one_at_a_time(database):
    await made(database)
    await announces(database, *(f"j{n}" for n in range(5)))
    (first, *others) = await claimed(database)
    await database.record_attempt(first, REFUSED)
    for one in others:
        await database.record_attempt(one, REFUSED)
    await announces(database, "k0", "k1", "k2")
    (one,) = await claimed(database)
    assert await claimed(database, endpoints={"wh_1": 1}) == []
    await database.record_attempt(one, OK)

    assert len(await claimed(database)) == 2


async def test_two_secrets_are_valid_while_they_are_rotated(database, time):
    await made(database, secret="whsec_b2xk")
    assert await database.rotate_secret("t", "wh_1", "whsec_bmV3", "k1")
    await announces(database, "j", "k")
    claims = await claimed(database)
    assert {claim.secrets for claim in claims} == {("whsec_bmV3", "whsec_b2xk")}
    await time.passes(OVERLAP_S + 1)
    assert {claim.secrets for claim in await claimed(database)} == {("whsec_bmV3",)}
    assert await database.rotate_secret("t", "wh_1", "whsec_bmV4", "k1")
    assert await database.rotate_secret("t", "wh_1", "whsec_bmV5", "k1")
    await time.passes(LEASE_S + 1)

    assert {claim.secrets for claim in await claimed(database)} == {("whsec_bmV5", "whsec_bmV4")}


async def test_an_endpoint_for_which_nothing_can_be_signed_is_paused_and_its_events_wait(database):
    await made(database)
    await made(database, "wh_2", events=("webhook.paused",))
    await announces(database, "j", "k")
    claims = await claimed(database)
    assert await database.pause_unsigned(claims[0], "no key")
    assert await database.pause_unsigned(claims[1], "no key")
    paused = await database.webhook("t", "wh_1")

    assert (paused.paused_reason, paused.failing_since) == ("nothing can be signed: no key", None)
    assert [claim.delivery.type for claim in await claimed(database)] == ["webhook.paused"]
    assert await database.end_unsigned_pause("t", "wh_1")
    assert not await database.end_unsigned_pause("t", "wh_1")
    again = await claimed(database)
    assert [(claim.delivery.job_id, claim.delivery.failures) for claim in again] == [("j", 0), ("k", 0)]
    assert not await database.pause_unsigned(claims[0], "an old claim")
    await database.record_attempt(again[0], GONE)
    assert not await database.end_unsigned_pause("t", "wh_1")  # a pause for another reason


async def test_stored_secrets_are_listed_and_replaced(database, time):
    await made(database, secret="one")
    await made(database, "wh_b", "bolt", secret="other")
    await database.rotate_secret("t", "wh_1", "two", "k1")
    listed = await database.stored_secrets()
    assert [(one.tenant_id, one.webhook_id, one.text) for one in listed] == [
        ("bolt", "wh_b", "other"), ("t", "wh_1", "two"), ("t", "wh_1", "one"),
    ]  # fmt: skip
    assert "two" not in repr(listed)
    assert await database.replace_secret(listed[2], "ONE")
    assert not await database.replace_secret(listed[2], "again")
    await announces(database, "j")
    assert {claim.secrets for claim in await claimed(database)} == {("two", "ONE")}
    await time.passes(OVERLAP_S + 1)
    assert [one.text for one in await database.stored_secrets()] == ["other", "two"]


async def test_endpoints_are_changed_listed_and_deleted(database):
    one = await made(database, description="ours", created_by="k1")
    assert one.created_at is not None
    assert await database.webhooks("t") == [one]
    changed = await database.update_webhook(
        replace(one, url="https://x/", events=["job.failed"], active=False), resume=False, by="k1"
    )
    assert await database.webhook("t", "wh_1") == changed
    assert (changed.url, changed.events, changed.active, changed.description) == (
        "https://x/",
        ["job.failed"],
        False,
        "ours",
    )
    await database.add_delivery("wh_1", of_endpoint(TEST, "e1", "t", one.created_at, {}), "k1")
    assert await database.delete_webhook("t", "wh_1", "k1")
    assert not await database.delete_webhook("t", "wh_1", "k1")
    assert await database.webhooks("t") == []
    assert await database.deliveries("t", "wh_1", None, None, 10) == []
    assert await database.update_webhook(one, resume=True, by="k1") is None
    assert not await database.rotate_secret("t", "wh_1", "whsec_MQ==", "k1")


async def test_a_tenant_has_so_many_endpoints_and_no_more(database):
    for n in range(MAX_ENDPOINTS):
        await made(database, f"wh_{n}")
    with pytest.raises(TooManyEndpoints, match="20 webhooks"):
        await made(database, "wh_more")
    await made(database, "wh_b", "bolt")


async def test_the_history_is_read_in_pages_and_by_state(database):
    await made(database)
    await announces(database, *"abcde")
    page = await database.deliveries("t", "wh_1", None, None, 2)
    rest = await database.deliveries("t", "wh_1", None, page[-1].id, 10)
    assert [d.job_id for d in [*page, *rest]] == list("edcba")
    await database.record_attempt((await claimed(database, 1000))[0], OK)

    (done,) = await database.deliveries("t", "wh_1", "delivered", None, 10)
    assert done.delivered_at is not None
    assert await database.delivery("t", "wh_1", done.id) == done
    assert await database.delivery("t", "wh_2", done.id) is None
    assert await database.delivery("bolt", "wh_1", done.id) is None
    assert await database.attempts("bolt", done.id) == []
    assert await database.replay("t", "wh_1", "k1", done.id) == 1
    assert await database.replay("t", "wh_1", "k1", done.id) == 0
    assert await database.replay("bolt", "wh_1", "k1", done.id) == 0


async def test_a_tenants_administrator_can_do_all_of_it_and_read_no_secret(migrated, db):
    from sinks.postgres.database import Postgres, connect_pool

    pool = await connect_pool(migrated)
    try:
        acme, bolt = (Postgres(pool).acting_as(tenant) for tenant in ("acme", "bolt"))
        one = await acme.create_webhook(endpoint(tenant="acme"), "whsec_MQ==")
        await announces(acme, "j", tenant="acme")
        await acme.rotate_secret("acme", "wh_1", "whsec_Mg==", "k1")
        await acme.update_webhook(one, resume=True, by="k1")
        (row,) = await acme.deliveries("acme", "wh_1", None, None, 10)
        (claim,) = await claimed(Postgres(pool))
        await Postgres(pool).record_attempt(claim, REFUSED)

        assert len(await acme.attempts("acme", row.id)) == 1
        assert await acme.replay("acme", "wh_1", "k1") == 0
        assert await bolt.webhooks("acme") == []
        assert not await bolt.delete_webhook("acme", "wh_1", "k1")
        assert await bolt.deliveries("acme", "wh_1", None, None, 10) == []
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL ROLE concord_writer")
            await connection.execute("SELECT set_config('concord.tenant', 'acme', true)")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch("SELECT secret FROM webhook_secrets")
        assert await acme.delete_webhook("acme", "wh_1", "k1")
        assert await db.fetchval("SELECT count(*) FROM webhook_secrets") == 0
        assert await db.fetchval("SELECT count(*) FROM webhook_attempts") == 0
    finally:
        await asyncio.wait_for(pool.close(), 5)


async def test_doctor_names_secrets_in_clear_and_lost_ones_and_migrate_encrypts(migrated, capsys):
    from agents.commands import migrate
    from agents.commands.checks.webhooks import webhooks
    from agents.fleet.environment import from_env
    from schemas.accounts.sealing import new_key
    from sinks.postgres.database import Postgres, connect_pool

    def with_key(key):
        return from_env(
            {"DATABASE_URL": migrated, "CONCORD_DATA": "/nowhere"} | ({"CONCORD_SECRET_KEY": key} if key else {})
        )

    async def found(key):
        return [(one.level, one.result) for one in await webhooks(with_key(key))]

    pool, key, other = await connect_pool(migrated), new_key(), new_key()
    try:
        assert await found(None) == [("warn", "CONCORD_SECRET_KEY is not set: no webhook can be made")]
        await made(Postgres(pool), secret="whsec_MQ==")
        assert await found(None) == await found(key) == [("warn", "in clear: wh_1 of t")]
        for said in ("encrypted 1 secrets of webhooks", "nothing to do"):
            assert await migrate.run(None, with_key(key)) == 0
            assert capsys.readouterr().out.strip() == said
        assert await found(key) == [("ok", "1, all of them encrypted, and they decrypt")]
        ((level, result),) = await found(other)
        assert (level, result.startswith("wh_1 of t: its secret is encrypted with the key")) == ("fail", True)
        (stored,) = await Postgres(pool).stored_secrets()
        assert "MQ" not in stored.text
    finally:
        await asyncio.wait_for(pool.close(), 5)
