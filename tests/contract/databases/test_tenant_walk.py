"""The walk of `tests.web.walk` on PostgreSQL, with the audit of what it left there."""

from __future__ import annotations

import asyncio

from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.blobs.memory import MemoryStore
from sinks.postgres.conversations.history import PostgresConversationHistory
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.reader import Reader
from sinks.postgres.reading.changes import PostgresChanges
from sinks.postgres.reading.reports import PostgresReports
from sinks.postgres.reading.summaries import PostgresSummaryItems
from tests.web.corrections import CorrectingWorker
from tests.web.walk import all_resources, prepared, seen_by_bolt, walk


async def test_a_walk_over_every_route_finds_and_changes_nothing_of_another_tenant(migrated, db):
    pool, reading = await connect_pool(migrated), await connect_pool(migrated)
    database, reader, store = Postgres(pool), Reader(reading), MemoryStore()
    views = PostgresReports(reader), PostgresChanges(reader), PostgresSummaryItems(reader)
    views += (PostgresConversationHistory(reader),)
    resources = all_resources(database, Accounts(database, AccountSettings()), reader, store, *views)
    try:
        async with CorrectingWorker(database, store, reader=reader, resources=resources) as worker:
            ids = await prepared(worker)
            before = await seen_by_bolt(worker, ids)
            compared, leaks = await walk(worker, ids)
            after = await seen_by_bolt(worker, ids)
    finally:
        await asyncio.wait_for(pool.close(), 5)
        reading.terminate()

    assert leaks == []
    assert compared > 90
    assert after == before
    assert await db.fetchval("SELECT count(*) FROM api_keys WHERE tenant_id = 'bolt'") == 1
