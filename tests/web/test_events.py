"""Event streams of jobs."""

from __future__ import annotations

import asyncio

import pytest

from schemas.jobs.status import status_of
from tests.web.service import (
    ACME,
    Holds,
    Worker,
    lines,
    problem,
    stored,
)
from web.live import status_feed
from web.live.status_feed import StatusFeeds


@pytest.fixture
def _published_only(monkeypatch):
    """Streams of jobs in the table query after half a minute, six times as long as these tests wait."""
    monkeypatch.setattr(status_feed, "_PUBLISHED_INTERVAL_S", 30.0)


async def test_every_newer_status_is_sent_until_the_run_ends():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events")
        events = await lines(response, 1)
        for status in ("transcribing", "reconciling", "persisting", "completed"):
            await worker.moved(status)
            worker.feeds.publish(await worker.tabled())
            worker.feeds.publish(status_of(stored("j")))  # one that comes late
            events += await lines(response, 1)

        assert [data["version"] for _, data in events] == [1, 2, 3, 4, 5]
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.content.read() == b""


@pytest.mark.usefixtures("_published_only")
async def test_a_published_status_is_sent_at_once():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events")
        await lines(response, 1)
        await asyncio.sleep(0.1)
        await worker.moved("transcribing")
        worker.feeds.publish(await worker.tabled())

        assert (await lines(response, 1))[0][1]["version"] == 2


@pytest.mark.usefixtures("_published_only")
async def test_a_job_that_is_not_in_the_table_is_queried_often(worker):
    await worker.created()
    worker.live.rows.clear()
    response = await worker.get("/jobs/j/events")
    await lines(response, 1)
    await worker.moved("completed")

    assert (await lines(response, 1))[0][1]["version"] == 2


async def test_a_client_that_reconnects_gets_no_status_twice():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events", ACME | {"Last-Event-ID": "1"})
        await worker.moved("completed")
        worker.feeds.publish(await worker.tabled())

        assert [data["version"] for _, data in await lines(response, 1)] == [2]
        assert (await worker.get("/jobs/j/events", ACME | {"Last-Event-ID": "2"})).status == 204
        assert (await worker.get("/jobs/j/events", ACME | {"Last-Event-ID": "x"})).status == 200


async def test_a_stream_ends_when_its_job_is_deleted():
    reader = Holds(j=stored("j"))
    async with Worker(reader=reader) as worker:
        response = await worker.get("/jobs/j/events")
        await lines(response, 1)
        del reader.rows["j"]

        assert (await lines(response, 1))[0][0] == "gone"


@pytest.mark.usefixtures("_published_only")
async def test_a_worker_that_stops_ends_its_streams_at_once():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events")
        await lines(response, 1)
        await worker.app.shutdown()

        assert await asyncio.wait_for(response.content.read(), 5) == b""
        await problem(await worker.get("/jobs/j/events"), 503)
