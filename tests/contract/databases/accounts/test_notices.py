"""Workers are told of changes of keys and settings, whoever makes them and by whatever statement."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.postgres.accounts.notices import listen_for_changes
from sinks.postgres.database import Postgres, connect_pool
from tests.contract.databases.accounts.test_keys import made


@pytest.fixture
async def worker(migrated):
    """A worker that knows of changes by notices alone: what it keeps expires after an hour."""
    pool, told = await connect_pool(migrated), asyncio.Queue()
    accounts = Accounts(Postgres(pool), AccountSettings(deadline_s=60), seconds=3600)

    def changed(notice):
        accounts.changed(notice)
        told.put_nowait(notice)

    listening = asyncio.create_task(listen_for_changes(migrated, changed))
    assert await asyncio.wait_for(told.get(), 10) is None
    yield accounts, told
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening
    pool.terminate()


async def test_a_revoked_key_is_refused_within_a_second_of_the_commit(worker, db):
    accounts, told = worker
    key = made()
    columns = "(id, tenant_id, name, prefix, hash, scopes, created_by)"
    await db.execute(
        f"INSERT INTO api_keys {columns} VALUES ($1, 'acme', 'a', 'p', $2, '[\"read\"]', 'x')", key.id, key.hash
    )
    assert await asyncio.wait_for(told.get(), 5) == "keys"
    assert (await accounts.key(key.hash)).id == key.id
    await db.execute("UPDATE api_keys SET last_used_at = now()")  # nobody is told of a use
    await db.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.id)
    committed = time.monotonic()
    while await accounts.key(key.hash) is not None:
        await asyncio.sleep(0.001)

    assert time.monotonic() - committed < 1
    assert (await told.get(), told.empty()) == ("keys", True)


async def test_settings_hold_as_soon_as_they_are_told(worker, db):
    accounts, told = worker
    assert (await accounts.settings_of("acme")).deadline_s == 60
    await db.execute("INSERT INTO account_settings VALUES ('acme', 1, '{\"deadline_s\": 5}', 'x')")

    assert await asyncio.wait_for(told.get(), 5) == "settings acme"
    assert (await accounts.settings_of("acme")).deadline_s == 5


async def test_after_a_lost_connection_everything_is_asked_anew(worker, db):
    accounts, told = worker
    assert (await accounts.settings_of("acme")).deadline_s == 60
    await db.execute("ALTER TABLE account_settings DISABLE TRIGGER tell_change")
    await db.execute("INSERT INTO account_settings VALUES ('acme', 1, '{\"deadline_s\": 5}', 'x')")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'concord accounts'"
    assert await db.fetchval(ended)

    assert await asyncio.wait_for(told.get(), 10) is None
    assert (await accounts.settings_of("acme")).deadline_s == 5
