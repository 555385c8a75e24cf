"""One feed a job, however many subscribers it has: what is queried, and what each of them gets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from schemas.errors import NotFound, Unavailable
from schemas.jobs.rows import Job
from schemas.jobs.status import status_of, status_version
from sinks.coalesce import Coalesce
from web.live.status_feed import StatusFeeds
from web.live.statuses import CurrentStatus

AT = datetime(2026, 5, 1, tzinfo=UTC)


def answer(version, status="transcribing", job_id="j", source="database"):
    named = {"tenant_id": "acme", "job_id": job_id, "filename": "a.wav", "audio_uri": "s3://b/a"}
    return CurrentStatus(status_of(Job(**named, version=version, status=status, created_at=AT, updated_at=AT)), source)


class Database:
    """Looks as PostgreSQL would, and counts them."""

    def __init__(self, newest):
        self.newest = newest
        self.looks = 0
        self.fault = None

    async def look(self, _, known):
        self.looks += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return self.newest if status_version(self.newest.status) != known else None


@pytest.fixture
def database():
    return Database(answer(1))


async def watch(feeds, database, first=None, versions=None):
    """Watch to the end; the versions seen."""
    versions = [] if versions is None else versions
    first = first or database.newest
    with feeds.subscribe(first, database.look) as feed:
        async for status in feed.statuses(first):
            versions.append(status and status.version)
    return versions


async def watching(feeds, database, count, **more):
    tasks = [asyncio.create_task(watch(feeds, database, **more)) for _ in range(count)]
    await asyncio.sleep(0.05)
    return tasks


async def test_a_thousand_subscribers_of_a_job_cost_one_query_at_a_time(database):
    feeds = StatusFeeds()
    tasks = await watching(feeds, database, 1000)
    await asyncio.sleep(1)

    assert 2 <= database.looks <= 7
    database.newest = answer(2, "completed")
    assert await asyncio.gather(*tasks) == [[1, 2]] * 1000


async def test_a_status_that_the_table_takes_is_delivered_at_once(database):
    feeds = StatusFeeds()
    database.newest = answer(1, source="table")
    tasks = await watching(feeds, database, 3)
    looks, database.newest = database.looks, answer(2, "completed")
    feeds.publish(database.newest.status)

    assert await asyncio.wait_for(asyncio.gather(*tasks), 0.2) == [[1, 2]] * 3
    assert database.looks == looks + 1


async def test_a_published_status_that_is_not_in_the_database_is_not_delivered(database):
    """Whoever speaks to the broker may write to its topics; and a step that is rolled back has published nothing."""
    feeds = StatusFeeds()
    versions = []
    (task,) = await watching(feeds, database, 1, versions=versions)
    feeds.publish(answer(99, "completed").status)
    await asyncio.sleep(0.1)

    assert versions == [1]
    task.cancel()


async def test_a_status_between_the_first_read_and_the_subscription_is_delivered_at_once(database):
    feeds = StatusFeeds()
    first, database.newest = answer(1), answer(2, "completed")

    assert await asyncio.wait_for(watch(feeds, database, first), 0.2) == [1, 2]


async def test_a_slow_subscriber_skips_old_statuses_and_never_the_newest(database):
    feeds = StatusFeeds()
    with feeds.subscribe(answer(1), database.look) as feed:
        statuses = feed.statuses(answer(1))
        assert (await anext(statuses)).version == 1
        for version in range(2, 50):
            feed.offer(answer(version))

        assert (await anext(statuses)).version == 49


async def test_no_status_is_delivered_after_a_newer_one(database):
    feeds = StatusFeeds()
    with feeds.subscribe(answer(5), database.look) as feed:
        statuses = feed.statuses(answer(5))
        await anext(statuses)
        database.newest = answer(3)  # a server that lags
        later = asyncio.create_task(anext(statuses))
        await asyncio.sleep(0.1)
        assert not later.done()
        database.newest = answer(6)
        feed.query_now()

        assert (await asyncio.wait_for(later, 1)).version == 6


@pytest.mark.parametrize("fault", [NotFound("deleted"), RuntimeError("a bug")], ids=["a deleted job", "a bug"])
async def test_what_does_not_pass_ends_the_subscriptions(database, fault):
    feeds = StatusFeeds()
    tasks = await watching(feeds, database, 2)
    database.fault = fault
    feeds.publish(database.newest.status)

    for task in tasks:
        with pytest.raises(type(fault)):
            await asyncio.wait_for(task, 1)


async def test_a_subscription_goes_on_while_the_database_is_away(database):
    feeds = StatusFeeds()
    tasks = await watching(feeds, database, 1)
    database.fault = Unavailable("away")
    feeds.publish(database.newest.status)
    await asyncio.sleep(0.05)
    database.fault, database.newest = None, answer(2, "failed")

    assert await asyncio.wait_for(tasks[0], 1) == [1, 2]


async def test_the_next_run_is_polled_while_the_last_subscriber_of_the_first_leaves(database):
    feeds = StatusFeeds()
    with feeds.subscribe(answer(2, "completed"), database.look):
        database.newest = answer(3)
        tasks = await watching(feeds, database, 1)
        database.newest = answer(4, "completed")

        assert await asyncio.wait_for(tasks[0], 1) == [3, 4]


async def test_a_stream_without_news_sends_heartbeats(monkeypatch, database):
    monkeypatch.setattr("web.live.status_feed.HEARTBEAT_S", 0.05)
    versions = []
    (task,) = await watching(StatusFeeds(), database, 1, versions=versions)
    await asyncio.sleep(0.15)
    task.cancel()

    assert versions[:3] == [1, None, None]


async def test_a_worker_that_stops_ends_its_subscriptions_at_once_and_accepts_no_more(database):
    feeds = StatusFeeds()
    tasks = await watching(feeds, database, 3)
    feeds.close()

    assert await asyncio.wait_for(asyncio.gather(*tasks), 0.2) == [[1]] * 3
    with pytest.raises(Unavailable):
        await watch(feeds, database)


async def test_polling_ends_with_the_last_subscription(database):
    feeds = StatusFeeds()
    tasks = await watching(feeds, database, 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    looks = database.looks
    await asyncio.sleep(0.4)

    assert database.looks == looks
    assert not feeds._feeds


@pytest.mark.slow
async def test_queries_for_many_jobs_are_coalesced():
    """Two thousand watched jobs, each looked at every two seconds, would be a thousand questions a second."""
    questions = []

    async def ask(keys):
        questions.append(len(keys))
        await asyncio.sleep(0.001)
        return [None] * len(keys)

    coalesced, feeds = Coalesce(ask), StatusFeeds()

    async def follow(job_id):
        with feeds.subscribe(answer(1, job_id=job_id), lambda key, _: coalesced(key)) as feed:
            async for _ in feed.statuses(answer(1, job_id=job_id)):
                pass

    tasks = [asyncio.create_task(follow(f"j{n}")) for n in range(2000)]
    await asyncio.sleep(0.5)
    questions.clear()
    await asyncio.sleep(2)
    feeds.close()
    await asyncio.gather(*tasks)

    assert sum(questions) > 1000
    assert sum(questions) / len(questions) > 30
