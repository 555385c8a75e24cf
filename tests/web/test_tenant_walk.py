"""Whatever a tenant asks about another's things is answered as if they did not exist."""

from __future__ import annotations

from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.web.corrections import CorrectingWorker
from tests.web.walk import all_resources, prepared, seen_by_bolt, walk


def walked():
    database, store = MemoryDatabase(), MemoryStore()
    reader = MemoryReader(database)
    resources = all_resources(database, Accounts(database, AccountSettings()), reader, store)
    return CorrectingWorker(database, store, reader=reader, resources=resources)


async def test_a_walk_over_every_route_finds_nothing_of_another_tenant():
    async with walked() as worker:
        ids = await prepared(worker)
        before = await seen_by_bolt(worker, ids)
        compared, leaks = await walk(worker, ids)

        assert leaks == []
        assert compared > 90
        assert await seen_by_bolt(worker, ids) == before


async def test_the_walk_finds_a_route_that_does_not_check_the_tenant(monkeypatch):
    monkeypatch.setattr("web.endpoint._check_tenant", lambda *_: None)
    async with walked() as worker:
        _, leaks = await walk(worker, await prepared(worker))

        assert {leak[:2] for leak in leaks} >= {("GET", "/tenants/bolt/jobs"), ("POST", "/tenants/bolt/keys")}
