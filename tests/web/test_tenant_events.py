"""Event streams of whole tenants."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from sinks.memory.database import MemoryDatabase
from sinks.memory.reading.changes import MemoryChanges
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from web.connections.caller_limit import CallerLimit
from web.live import tenant_feed
from web.live.status_feed import StatusFeeds
from web.live.tenant_feed import TenantFeeds
from web.resources.reports.tenant_events import TenantEvents


class Following(Worker):
    """A worker with the resource."""

    def __init__(self, database=None):
        database = database or MemoryDatabase()
        changes = MemoryChanges(database)
        tenants = TenantFeeds(changes)
        feeds = StatusFeeds()
        feeds.followers.append(tenants)
        super().__init__(database, feeds=feeds, resources=[TenantEvents(changes, tenants, CallerLimit("streams", 8))])


@pytest.fixture
async def worker():
    async with Following() as worker:
        yield worker


async def opened(worker, headers=ACME, tenant="acme", **more):
    response = await worker.get(f"/tenants/{tenant}/events", headers | more)
    assert response.status == 200, await response.text()
    return response, await block(response)


async def block(response):
    text = (await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)).decode()
    return dict(line.split(": ", 1) for line in text.strip().splitlines())


async def statuses(response, count):
    import json

    blocks = [await block(response) for _ in range(count)]
    return [(json.loads(one["data"])["job_id"], json.loads(one["data"])["version"]) for one in blocks], blocks[-1]["id"]


async def test_every_change_of_the_tenants_jobs_is_sent(worker):
    await worker.created("before")
    response, first = await opened(worker)
    await worker.created("a")
    await worker.created("theirs", "bolt")
    sent, _ = await statuses(response, 1)
    await worker.moved("transcribing", "a")
    await worker.moved("completed", "before")
    more, _ = await statuses(response, 2)

    assert first["retry"] == "2000"
    assert sent + more == [("a", 1), ("a", 2), ("before", 2)]


async def test_what_lies_behind_the_overlap_is_not_read_again(worker, monkeypatch):
    asked, ask = [], MemoryChanges.changes

    async def changes(self, tenant, since, limit):
        asked.append(since)
        return await ask(self, tenant, since, limit)

    monkeypatch.setattr(MemoryChanges, "changes", changes)
    await worker.created("a")
    response, _ = await opened(worker)
    later = worker.database.clock() + timedelta(hours=1)
    worker.database.clock = lambda: later  # in which nothing has changed
    while asked[-1] < later - tenant_feed.OVERLAP:
        await asyncio.wait_for(asyncio.sleep(0.05), 5)
    await worker.moved("completed", "a")

    assert (await statuses(response, 1))[0] == [("a", 2)]


async def test_a_status_that_the_table_takes_is_sent_at_once(worker, monkeypatch):
    monkeypatch.setattr(tenant_feed, "INTERVAL_S", 30.0)
    response, _ = await opened(worker)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    worker.feeds.publish(await worker.created("a"))

    assert (await statuses(response, 1))[0] == [("a", 1)]
    assert time.monotonic() - began < 15


async def test_a_stream_is_resumed_where_it_ended_also_at_another_worker(worker):
    response, _ = await opened(worker)
    await worker.created("a")
    _, id = await statuses(response, 1)
    response.close()
    await worker.created("b")
    await worker.moved("failed", "b")
    async with Following(worker.database) as other:
        resumed, _ = await opened(other, **{"Last-Event-ID": id})
        sent, _ = await statuses(resumed, 2)

    assert sent == [("a", 1), ("b", 2)]  # the first a second time: what was committed late may lie beside it


async def test_a_stream_that_ended_long_ago_is_told_to_begin_anew(worker):
    await worker.created("a")
    _, first = await opened(worker, **{"Last-Event-ID": "1"})

    assert first["event"] == "reset"
    assert int(first["id"]) > 10**15
    assert (await opened(worker, **{"Last-Event-ID": "x"}))[1].get("event") is None


async def test_a_client_that_does_not_read_is_ended_and_others_go_on(monkeypatch):
    monkeypatch.setattr(tenant_feed, "BEHIND", 3)
    database = MemoryDatabase()
    feeds = TenantFeeds(MemoryChanges(database))
    async with (
        Worker(database) as worker,
        feeds.subscribe("acme", await database.now()) as slow,
        feeds.subscribe("acme", await database.now()) as quick,
    ):
        seen = []
        for n in range(5):
            await worker.created(f"j{n}")
            seen.append((await asyncio.wait_for(anext(quick), 5)).job_id)
        left = [status.job_id async for status in slow]

    assert seen == [f"j{n}" for n in range(5)]
    assert left == ["j0", "j1", "j2"]


async def test_streams_end_and_begin_anew_where_what_is_new_cannot_be_told(worker, monkeypatch):
    response, _ = await opened(worker)
    ask = MemoryChanges.changes

    async def broken(*_):
        raise ValueError("a row that nothing here can read")

    monkeypatch.setattr(MemoryChanges, "changes", broken)
    assert await asyncio.wait_for(response.content.read(), 5) == b""
    monkeypatch.setattr(MemoryChanges, "changes", ask)
    again, _ = await opened(worker)
    await worker.created("a")

    assert (await statuses(again, 1))[0] == [("a", 1)]


async def test_streams_end_when_the_worker_stops(worker):
    response, _ = await opened(worker)
    await worker.app.shutdown()

    assert await asyncio.wait_for(response.content.read(), 5) == b""
    await problem(await worker.get("/tenants/acme/events"), 503)


async def test_another_tenants_stream_does_not_exist(worker):
    theirs = await problem(await worker.get("/tenants/acme/events", BOLT), 404)
    nobodys = await problem(await worker.get("/tenants/nobody/events", BOLT), 404)

    assert theirs == nobodys
    response, _ = await opened(worker, ROOT)
    await worker.created("a")
    assert "?tenant=acme" in (await block(response))["data"]
