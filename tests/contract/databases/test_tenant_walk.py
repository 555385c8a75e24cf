"""The walk of `tests.unit.web.walk` on PostgreSQL, with the audit of what it left there."""

from __future__ import annotations

import asyncio

from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.reader import Reader
from tests.unit.web.service import Worker
from tests.unit.web.walk import all_resources, prepared, seen_by_bolt, walk


async def test_a_walk_over_every_route_finds_and_changes_nothing_of_another_tenant(migrated, db):
    pool, reading = await connect_pool(migrated), await connect_pool(migrated)
    database = Postgres(pool)
    resources = all_resources(database, Accounts(database, AccountSettings()))
    try:
        async with Worker(database, reader=Reader(reading), resources=resources) as worker:
            ids = await prepared(worker)
            before = await seen_by_bolt(worker, ids)
            compared, leaks = await walk(worker, ids)
            after = await seen_by_bolt(worker, ids)
    finally:
        await asyncio.wait_for(pool.close(), 5)
        reading.terminate()

    assert leaks == []
    assert compared > 40
    assert after == before
    assert await db.fetchval("SELECT count(*) FROM api_keys WHERE tenant_id = 'bolt'") == 1
