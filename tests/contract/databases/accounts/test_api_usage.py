"""What every database must do with the use of the HTTP interface, and the notices that only PostgreSQL gives."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from schemas.accounts.api_usage import UsedRoute
from schemas.accounts.settings import AccountSettings
from sinks.postgres.database import Postgres, connect_pool
from tests.contract.databases.accounts.test_keys import made

MINUTE = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)


async def stored(under_test):
    if not hasattr(under_test, "pool"):
        return dict(under_test.database.api_usage)
    rows = await under_test.pool.fetch("SELECT * FROM api_usage_metrics")
    return {UsedRoute(*tuple(row)[:5]): row["requests"] for row in rows}


async def test_counts_are_added_up(under_test):
    one, other = UsedRoute("acme", "ck_1", "tenants", 2, MINUTE), UsedRoute("*", "local", "tenants", 4, MINUTE)
    await under_test.database.count_requests({one: 3, other: 1})
    await under_test.database.count_requests({one: 2})

    assert await stored(under_test) == {one: 5, other: 1}


async def test_old_counts_are_forgotten(under_test):
    old = UsedRoute("acme", "ck_1", "tenants", 2, MINUTE)
    new = replace(old, minute=datetime.now(UTC).replace(second=0, microsecond=0))
    await under_test.database.count_requests({old: 3, new: 1})
    assert await under_test.database.forget("api_usage_metrics", 1.0, 10) == 1

    assert await stored(under_test) == {new: 1}


async def test_what_a_tenant_does_with_keys_is_done_to_its_own_only(migrated, db):
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    try:
        acme, own, operators = database.acting_as("acme"), made(), made(tenant=None)
        await acme.add_key(own)
        await database.add_key(operators)
        hidden = await database.acting_as("bolt").key("acme", own.id)
        revoked = await database.acting_as("bolt").revoke_key("acme", own.id, "x")
        of_operators = await acme.key(None, operators.id)
        await acme.save_account_settings("acme", AccountSettings(), 0, "x")
        unseen = await database.acting_as("bolt").account_settings("acme")
    finally:
        await pool.close()

    assert (hidden, revoked, of_operators, unseen.version) == (None, False, None, 0)
    assert await db.fetchval("SELECT version FROM account_settings") == 1
