"""Limits of one client, one request and one body."""

from __future__ import annotations

import asyncio
import io

from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.web.service import (
    ACME,
    BOLT,
    ROOT,
    Worker,
    eventually,
    problem,
)
from web.connections.bounds import Bounds
from web.live.status_feed import StatusFeeds


async def test_event_streams_of_one_tenant_leave_room_for_those_of_others_and_for_other_requests():
    async with Worker(feeds=StatusFeeds(), bounds=Bounds(connections=16)) as worker:
        await worker.created()
        await worker.created("k", "bolt")
        watching = [await worker.get("/jobs/j/events") for _ in range(2)]
        refused = await worker.get("/jobs/j/events")

        assert "the limit of one caller" in (await problem(refused, 429))["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await worker.get("/jobs/j/status")).status == 200
        watching += [await worker.get("/jobs/k/events", BOLT) for _ in range(2)]
        watching += [await worker.get("/jobs/j/events", ROOT) for _ in range(2)]
        assert {response.status for response in watching} == {200}
        watching[0].close()
        assert await eventually(lambda: is_watched(worker))


async def is_watched(worker):
    response = await worker.get("/jobs/j/events")
    response.close()
    return response.status == 200


async def test_recordings_that_are_sent_to_one_tenant_are_limited():
    async with Worker(store=Endless(), bounds=Bounds(connections=16)) as worker:
        await worker.created()
        await worker.stored_audio()
        sending = await worker.get("/jobs/j/audio")

        assert sending.status == 200
        assert int((await worker.get("/jobs/j/audio")).headers["Retry-After"]) >= 1
        sending.close()


class Endless(MemoryStore):
    """A store that never comes to an end."""

    async def stream(self, uri, start=0, end=None):
        yield b"x"
        await asyncio.sleep(60)


async def test_a_request_that_takes_too_long_is_answered_with_503(monkeypatch):
    class Slow(MemoryReader):
        async def jobs(self, *_, **__):
            await asyncio.sleep(60)

    monkeypatch.setattr("web.limits.deadlines.REQUEST_S", 0.1)
    async with Worker(reader=Slow(MemoryDatabase())) as worker:
        response = await worker.get("/tenants/acme/jobs")

        await problem(response, 503)
        assert response.headers["Retry-After"] == "2"


async def test_a_body_of_a_get_is_refused_by_its_content_length(worker):
    sizes = [io.BytesIO(bytes(size)) for size in (1_048_576, 1_048_577)]
    assert (await worker.client.get("/tenants", headers=ACME, data=sizes[0])).status == 200
    response = await worker.client.get("/tenants", headers=ACME, data=sizes[1])

    await problem(response, 413)
