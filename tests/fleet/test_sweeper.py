"""Jobs that nothing is on its way for are put on their way again, or end; blobs that nothing refers to go."""

from datetime import timedelta
from uuid import uuid4

import pytest

from agents.upkeep.stuck_jobs import TRIES
from agents.upkeep.sweeper import Sweeper
from schemas import topics
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import STAGE_OF, Job
from tests.fleet.conftest import J, Speaker, recording


class Commits:
    """Commits at once."""

    def __init__(self, database):
        self._database = database

    async def commit(self, step):
        return await self._database.commit([step])


class ReadAll:
    """A Kafka whose groups have read everything, or nothing of the topics named."""

    def __init__(self):
        self.behind = set()

    async def ends(self, topics):
        return dict.fromkeys(topics, 0)

    async def passed(self, groups, ends):
        return not self.behind & {topic for group in groups.values() for topic in group}


@pytest.fixture
def swept(story):
    """A fleet of two recognizers with a sweeper, and how often it looks."""

    def build(*speakers, **more):
        told = story(*(speakers or (Speaker("a"), Speaker("b"))), **more)
        fleet = told.fleet
        positions = ReadAll()
        names = tuple(speaker.name for speaker in speakers) or ("a", "b")
        database = fleet.database
        sweeper = Sweeper(database, database, Commits(database), told.store, positions, names, 3600.0)
        return told, sweeper, positions

    return build


async def looks(told, sweeper, *, times=2, run=True):
    """The sweeper looks every minute; what it makes is worked off."""
    for _ in range(times):
        told.fleet.clock.advance(61)
        await sweeper.look()
        if run:
            await told.fleet.run(until=timedelta(seconds=30))


def lose(told, *lost):
    """Nothing of these topics is delivered any more: what waits is gone."""
    fleet = told.fleet
    for queue in fleet._queues.values():
        kept = [record for record in queue if record.topic not in lost]
        queue.clear()
        queue.extend(kept)
    fleet.database.outbox = [(due, m) for due, m in fleet.database.outbox if m.topic not in lost]


async def stops_in(told, status):
    """Work until the job has this status, and lose every event."""
    if status == "uploaded":
        uri = (await told.store.put("t/in/call.wav", recording(), "audio/wav")).uri
        job = Job(tenant_id="t", job_id=J, filename="call.wav", audio_uri=uri)
        await told.fleet.database.commit([Step("intake", uuid4(), Outcome(tenant_id="t", job_id=J, create=job))])
        return
    await told.upload()
    for _ in range(200):
        job = await told.fleet.database.job("t", J)
        if job is not None and job.status == status:
            lose(told, *told.fleet.log, *(m.topic for _, m in told.fleet.database.outbox))
            return
        if not await told.fleet._one():
            told.fleet.clock.advance(1)
    raise AssertionError(f"never {status}")


@pytest.mark.parametrize("status", STAGE_OF)
async def test_a_job_whose_events_are_lost_goes_on(swept, status):
    told, sweeper, _ = swept()
    await stops_in(told, status)

    await looks(told, sweeper)
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 1)]


@pytest.mark.parametrize("status", STAGE_OF)
async def test_a_job_that_cannot_be_moved_ends_with_a_reason(swept, status):
    told, sweeper, _ = swept()
    await stops_in(told, status)

    for _ in range(5 * (TRIES + 2)):
        await looks(told, sweeper, times=1, run=False)
        lose(told, *(m.topic for _, m in told.fleet.database.outbox if m.topic != topics.FAILED.name))
        await told.fleet.run(until=timedelta(0))
    await told.fleet.run(until=timedelta(hours=2))

    assert [topic for topic, *_ in told.terminal()] == ["job.failed"]
    assert told.fleet.events("job.failed")[0]["code"] in {"stuck", "provider_failed", "provider_error"}


async def test_what_may_still_be_in_kafka_is_waited_for(swept):
    told, sweeper, positions = swept()
    await stops_in(told, "reconciling")
    positions.behind = {topics.RESULTS.name}

    await looks(told, sweeper, times=6)
    assert told.terminal() == []

    positions.behind = set()
    await looks(told, sweeper)
    assert told.terminal() == [("persisted", J, 1)]


async def test_a_lost_deadline_is_made_again(swept):
    told, sweeper, _ = swept(Speaker("a"), Speaker("b", polls=10**6), deadline_s=600)
    await told.upload()
    await told.fleet.run(until=timedelta(seconds=5))
    lose(told, topics.RECONCILE_DUE.name)

    await looks(told, sweeper, times=4)
    await told.fleet.run(until=timedelta(hours=3))

    assert [topic for topic, *_ in told.terminal()] == ["persisted"]


async def test_a_job_that_waits_for_its_provider_is_left_alone(swept):
    told, sweeper, _ = swept(Speaker("a", polls=500), Speaker("b"))
    await told.upload()
    await told.fleet.run(until=timedelta(seconds=5))

    await looks(told, sweeper, times=5)

    assert [entry for entry in told.fleet.database.audit if entry[1] == "sweeper"] == []


async def test_the_recording_of_a_repeat_is_deleted_and_that_of_the_job_stays(swept):
    """Two uploads of one job at once: the second one's recording, of another format, belongs to nobody."""
    told, sweeper, _ = swept()
    await told.upload()
    await told.fleet.run()
    [uri] = [f.uri for f in told.fleet.database.files.values() if f.kind == "original"]
    other = (await told.store.put(f"t/{J}/original.au", recording(), "audio/basic")).uri
    await told.fleet.database.intend_blob(("t", J), other)
    await told.fleet.database.intend_blob(("t", J), uri)  # as a redelivery does

    await sweeper.sweep_blobs()
    assert await told.store.stat(other) is not None  # it may be about to be referred to
    told.fleet.clock.advance(sweeper.settled_s + 1)
    await sweeper.sweep_blobs()

    assert await told.store.stat(other) is None
    assert await told.store.stat(uri) is not None
    assert await told.fleet.database.orphan_blobs(0, 0, 10) == []


async def test_a_job_leaves_no_intention_behind(swept):
    told, *_ = swept()
    await told.upload()
    await told.fleet.run()

    assert told.fleet.database._intents == {}
