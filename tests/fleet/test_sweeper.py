"""Jobs without a pending event are continued, or ended; unreferenced blobs are deleted."""

from datetime import timedelta
from uuid import uuid4

import pytest

from agents.upkeep.stuck_jobs import TRIES
from agents.upkeep.sweeper import Sweeper
from schemas import topics
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import STAGE_OF, Job
from tests.fleet.conftest import JOB, FakeRecognizer, recording


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
def swept(make_scenario):
    """A fleet of two recognizers with a sweeper, and how often it looks."""

    def build(*recognizers, **more):
        scenario = make_scenario(*(recognizers or (FakeRecognizer("a"), FakeRecognizer("b"))), **more)
        fleet = scenario.fleet
        positions = ReadAll()
        names = tuple(recognizer.name for recognizer in recognizers) or ("a", "b")
        database = fleet.database
        sweeper = Sweeper(database, database, Commits(database), scenario.store, positions, names, 3600.0)
        return scenario, sweeper, positions

    return build


async def looks(scenario, sweeper, *, times=2, run=True):
    """The sweeper looks every minute; what it makes is worked off."""
    for _ in range(times):
        scenario.fleet.clock.advance(61)
        await sweeper.look()
        if run:
            await scenario.fleet.run(until=timedelta(seconds=30))


def lose(scenario, *lost):
    """Nothing of these topics is delivered any more: what waits is gone."""
    fleet = scenario.fleet
    for queue in fleet._queues.values():
        kept = [record for record in queue if record.topic not in lost]
        queue.clear()
        queue.extend(kept)
    fleet.database.outbox = [(due, m) for due, m in fleet.database.outbox if m.topic not in lost]


async def stops_in(scenario, status):
    """Work until the job has this status, and lose every event."""
    if status == "uploaded":
        uri = (await scenario.store.put("t/in/call.wav", recording(), "audio/wav")).uri
        job = Job(tenant_id="t", job_id=JOB, filename="call.wav", audio_uri=uri)
        await scenario.fleet.database.commit([Step("intake", uuid4(), Outcome(tenant_id="t", job_id=JOB, create=job))])
        return
    await scenario.upload()
    for _ in range(200):
        job = await scenario.fleet.database.job("t", JOB)
        if job is not None and job.status == status:
            lose(scenario, *scenario.fleet.log, *(m.topic for _, m in scenario.fleet.database.outbox))
            return
        if not await scenario.fleet._one():
            scenario.fleet.clock.advance(1)
    raise AssertionError(f"never {status}")


@pytest.mark.parametrize("status", STAGE_OF)
async def test_a_job_whose_events_are_lost_goes_on(swept, status):
    scenario, sweeper, _ = swept()
    await stops_in(scenario, status)

    await looks(scenario, sweeper)
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]


@pytest.mark.parametrize("status", STAGE_OF)
async def test_a_job_that_cannot_be_moved_ends_with_a_reason(swept, status):
    scenario, sweeper, _ = swept()
    await stops_in(scenario, status)

    for _ in range(5 * (TRIES + 2)):
        await looks(scenario, sweeper, times=1, run=False)
        lose(scenario, *(m.topic for _, m in scenario.fleet.database.outbox if m.topic != topics.FAILED.name))
        await scenario.fleet.run(until=timedelta(0))
    await scenario.fleet.run(until=timedelta(hours=2))

    assert [topic for topic, *_ in scenario.terminal()] == ["job.failed"]
    assert scenario.fleet.events("job.failed")[0]["code"] in {"stuck", "provider_failed", "provider_error"}


async def test_what_may_still_be_in_kafka_is_waited_for(swept):
    scenario, sweeper, positions = swept()
    await stops_in(scenario, "reconciling")
    positions.behind = {topics.RESULTS.name}

    await looks(scenario, sweeper, times=6)
    assert scenario.terminal() == []

    positions.behind = set()
    await looks(scenario, sweeper)
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_lost_deadline_is_made_again(swept):
    scenario, sweeper, _ = swept(FakeRecognizer("a"), FakeRecognizer("b", polls=10**6), deadline_s=600)
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=5))
    lose(scenario, topics.RECONCILE_DUE.name)

    await looks(scenario, sweeper, times=4)
    await scenario.fleet.run(until=timedelta(hours=3))

    assert [topic for topic, *_ in scenario.terminal()] == ["persisted"]


async def test_a_job_that_waits_for_its_provider_is_left_alone(swept):
    scenario, sweeper, _ = swept(FakeRecognizer("a", polls=500), FakeRecognizer("b"))
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=5))

    await looks(scenario, sweeper, times=5)

    assert "sweeper" not in [entry.step for entry, _ in scenario.fleet.database.audit.values()]


async def test_the_recording_of_a_repeat_is_deleted_and_that_of_the_job_stays(swept):
    """Two uploads of one job at once: the second one's recording, of another format, belongs to nobody."""
    scenario, sweeper, _ = swept()
    await scenario.upload()
    await scenario.fleet.run()
    [uri] = [f.uri for f in scenario.fleet.database.files.values() if f.kind == "original"]
    other = (await scenario.store.put(f"t/{JOB}/original.au", recording(), "audio/basic")).uri
    await scenario.fleet.database.intend_blob(("t", JOB), other)
    await scenario.fleet.database.intend_blob(("t", JOB), uri)  # as a redelivery does

    await sweeper.sweep_blobs()
    assert await scenario.store.stat(other) is not None  # it may be about to be referred to
    scenario.fleet.clock.advance(sweeper.settled_s + 1)
    await sweeper.sweep_blobs()

    assert await scenario.store.stat(other) is None
    assert await scenario.store.stat(uri) is not None
    assert await scenario.fleet.database.orphan_blobs(0, 0, 10) == []


async def test_a_job_leaves_no_intention_behind(swept):
    scenario, *_ = swept()
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.fleet.database._intents == {}
