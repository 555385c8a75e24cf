"""What every database notes of changes of keys, settings and webhooks, in the transaction of each change."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from schemas.accounts.keys import ApiKey, new_key
from schemas.accounts.settings import AccountSettings
from schemas.errors import StorageRefused
from schemas.jobs.rows import AuditEntry
from schemas.webhooks.events import TEST, of_endpoint
from schemas.webhooks.rows import Attempt, Endpoint
from sinks.memory.database import MemoryDatabase
from sinks.memory.reading.reports import MemoryReports
from sinks.postgres.reader import Reader
from sinks.postgres.reading.reports import PostgresReports


@pytest.fixture
def noted(under_test):
    """The database, and a look at what it has noted of a tenant, oldest first."""
    database = under_test.database
    is_memory = isinstance(database, MemoryDatabase)
    reports = MemoryReports(database) if is_memory else PostgresReports(Reader(under_test.pool))

    async def look(tenant, **more):
        return (await reports.account_changes(tenant, limit=99, **more))[::-1]

    return database, look


def key(tenant="t", **more):
    new = new_key()
    fields = {"name": "ours", "prefix": new.prefix, "hash": new.hash, "scopes": ("read",), "created_by": "root"} | more
    return ApiKey(id=new.id, tenant_id=tenant, **fields)


def endpoint(url="https://x.example/hook?token=s3cret") -> Endpoint:
    return Endpoint(tenant_id="t", webhook_id="wh_1", url=url, events=["*"], created_by="k1")


async def test_keys_are_made_rotated_and_revoked(noted):
    database, look = noted
    made, again = await database.add_key(key()), new_key()
    await database.rotate_key("t", made.id, again, 60, "k1")
    for _ in range(2):  # the second one changes nothing
        await database.revoke_key("t", made.id, "k2")
    await database.revoke_key("t", "unknown", "k2")
    await database.rotate_key("t", made.id, new_key(), 0, "k2")
    operators = await database.add_key(key(None))

    assert [(one.about, one.what, one.subject, one.author) for one in await look("t")] == [
        ("keys", "created", made.id, "root"), ("keys", "rotated", made.id, "k1"), ("keys", "revoked", made.id, "k2"),
    ]  # fmt: skip
    assert [one.details for one in await look("t")] == [
        {"name": "ours", "scopes": ["read"]}, {"new": again.id, "grace_s": 60.0}, {},
    ]  # fmt: skip
    assert [one.subject for one in await look(None)] == [operators.id]


async def test_settings_are_noted_by_the_names_of_those_that_changed(noted):
    database, look = noted
    await database.save_account_settings("t", AccountSettings(audio_days=3, mail_text="long"), 0, "k1")
    await database.save_account_settings("t", AccountSettings(audio_days=4, mail_text="long"), 1, "k2")
    assert await database.save_account_settings("t", AccountSettings(), 1, "late") is None

    assert [(one.what, one.author, one.details) for one in await look("t", about="settings")] == [
        ("changed", "k1", {"version": 1, "changed": ["mail_text", "audio_days"]}),
        ("changed", "k2", {"version": 2, "changed": ["audio_days"]}),
    ]
    assert await look("t", about="keys") == await look("u") == []


async def test_everything_that_is_done_with_a_webhook_is_noted_without_secrets(noted):
    database, look = noted
    one = await database.create_webhook(endpoint(), "whsec_s3cret")
    await database.rotate_secret("t", "wh_1", "whsec_s3cret2", "k2")
    delivery = await database.add_delivery("wh_1", of_endpoint(TEST, str(uuid4()), "t", one.created_at, {}), "k3")
    (claim,) = await database.claim_deliveries({}, {}, 9, 60)
    await database.record_attempt(claim, Attempt(status=410, duration_ms=1))
    await database.update_webhook(endpoint("https://y.example/?s3cret"), resume=True, by="k4")
    await database.update_webhook(endpoint("https://y.example/?s3cret"), resume=False, by="nothing changes")
    (claim,) = await database.claim_deliveries({}, {}, 9, 60) or [claim]
    await database.replay("t", "wh_1", "nothing is replayed")
    await database.delete_webhook("t", "wh_1", "k5")
    await database.delete_webhook("t", "wh_1", "there is none")
    changes = await look("t")

    assert [(change.what, change.author, change.details) for change in changes] == [
        ("created", "k1", {"url": "https://x.example/hook?...", "events": ["*"]}),
        ("secret rotated", "k2", {}),
        ("tested", "k3", {"delivery": str(delivery.id)}),
        ("paused", None, {"reason": "it answered 410 Gone"}),
        ("changed", "k4", {"url": "https://y.example/?...", "resumed": True}),
        ("deleted", "k5", {"url": "https://y.example/?...", "events": ["*"]}),
    ]
    assert {(change.about, change.subject) for change in changes} == {("webhooks", "wh_1")}
    assert "s3cret" not in str(changes)


async def test_replays_are_noted(noted):
    database, look = noted
    one = await database.create_webhook(endpoint(), "whsec_MQ==")
    delivery = await database.add_delivery("wh_1", of_endpoint(TEST, str(uuid4()), "t", one.created_at, {}), "k3")
    (claim,) = await database.claim_deliveries({}, {}, 9, 60)
    await database.record_attempt(claim, Attempt(status=200, duration_ms=1))
    await database.replay("t", "wh_1", "k4", delivery.id)

    last = (await look("t"))[-1]
    assert (last.what, last.author, last.details) == ("replayed", "k4", {"delivery": str(delivery.id)})


async def test_pages_go_from_the_newest_to_the_oldest(noted):
    database, look = noted
    made = [await database.add_key(key()) for _ in range(3)]
    newest = (await look("t"))[-1]

    assert [one.subject for one in await look("t", before=newest.id)] == [one.id for one in made[:2]]


async def test_a_change_that_cannot_be_stored_leaves_no_entry(noted):
    database, look = noted
    with pytest.raises(StorageRefused):
        await database.add_key(key(name="\x00"))

    assert await look("t") == []


async def test_an_administrator_notes_in_its_own_tenant_and_no_other_reads_it(migrated):
    from sinks.postgres.database import Postgres, connect_pool

    pool = await connect_pool(migrated)
    try:
        acme, reports = Postgres(pool).acting_as("acme"), PostgresReports(Reader(pool))
        made = await acme.add_key(key("acme"))
        await acme.save_account_settings("acme", AccountSettings(audit_days=3), 0, "k1")
        await acme.revoke_key("acme", made.id, "k1")
        await acme.create_webhook(Endpoint(tenant_id="acme", webhook_id="w", url="https://x/", events=["*"]), "x")
        await acme.update_webhook(
            Endpoint(tenant_id="acme", webhook_id="w", url="https://y/", events=["*"]), resume=False, by="k1"
        )
        await acme.rotate_secret("acme", "w", "y", "k1")
        await acme.delete_webhook("acme", "w", "k1")

        assert len(await reports.account_changes("acme", limit=99)) == 7
        assert await reports.account_changes("bolt", limit=99) == await reports.account_changes(None, limit=99) == []
    finally:
        await asyncio.wait_for(pool.close(), 5)


async def test_consent_to_voice_prints_and_their_deletion_are_noted_and_nothing_else_is_told(noted, under_test):
    database, look = noted
    if isinstance(database, MemoryDatabase):
        database._note(AuditEntry(tenant_id="t", job_id="", run=0, step="x", what="seen"))
    else:
        await under_test.pool.execute(
            "INSERT INTO audit_log (tenant_id, job_id, run, step, what, attempt) VALUES ('t', '', 0, 'x', 'seen', 0)"
        )
    await database.save_account_settings("t", AccountSettings(voice_prints=True), 0, "k1")
    await database.delete_voices("t", None, "k2")

    assert [(one.about, one.what, one.author) for one in await look("t", about="voices")] == [
        ("voices", "allowed", "k1"), ("voices", "all deleted", "k2"),
    ]  # fmt: skip
    assert {one.about for one in await look("t")} == {"settings", "voices"}
