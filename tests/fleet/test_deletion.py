"""Deletions in a fleet: whatever the job is doing, and wherever the pass is interrupted, nothing is left of it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from agents.runtime.failpoints import DELETION_POINTS
from agents.upkeep.deleting import Deleter
from schemas.errors import Transient, Unavailable
from schemas.jobs.deletion import LAST_LOOK_S, SETTLES_S
from schemas.jobs.rows import Job
from schemas.words import adapter
from tests.fleet.conftest import JOB, FakeRecognizer

KEY = ("t", JOB)


class Killed(BaseException):
    """Ends a pass as a kill does: nothing of it is cleaned up."""


class Vendors:
    """What recognizers keep, by (recognizer, id); `errors` are raised by the next calls."""

    def __init__(self):
        self.erased, self.errors, self.kept = [], [], None

    async def erase(self, provider, copy):
        if self.errors:
            raise self.errors.pop(0)
        self.erased.append((provider, copy.get("id")))
        return self.kept


@pytest.fixture
def scenario(make_scenario):
    it = make_scenario(FakeRecognizer("a"), FakeRecognizer("b", polls=3))
    it.vendors = Vendors()
    it.kill_at = None

    def passing(point):
        if point == it.kill_at:
            it.kill_at = None
            raise Killed

    async def retention():
        return {"persisted": 7 * 86_400.0, "job.status": None}

    it.deleter = Deleter(it.fleet.database, it.store, it.vendors, retention, passing)
    return it


async def deletion(scenario):
    return await scenario.fleet.database.deletion(*KEY)


async def carried_out(scenario, *, passes=10):
    """Make passes, as their times come, until the deletion is done."""
    for _ in range(passes):
        found = await deletion(scenario)
        scenario.fleet.clock.at = max(scenario.fleet.clock.at, found.due_at)
        await scenario.deleter.round()
        if (found := await deletion(scenario)).done_at is not None:
            return found
    raise AssertionError(f"not done after {passes} passes: {found}")


async def blobs(scenario):
    return [uri async for uri in scenario.store.list(f"t/{JOB}/")]


def rows(scenario):
    """What the database has with the job's id, but for the deletion and its entry in the audit log."""
    database = scenario.fleet.database
    tables = (database.transcripts, database.files, database.enrichments, database._requests, database._jobs)
    keys = [key for table in tables for key in table if JOB in key]
    events = [message.topic for _, message in database.outbox if message.job_id == JOB]
    audit = [entry for entry, _ in database.audit.values() if entry.job_id == JOB and entry.step != "delete"]
    return [*keys, *events, *audit, *(row for row in database.usage if row.job_id == JOB)]


async def uploaded(scenario, seconds=86_400.0, **more):
    await scenario.upload(reference="call 1", metadata={"customer": "Ann"}, **more)
    await scenario.fleet.run(until=timedelta(seconds=seconds))


async def test_nothing_is_left_of_a_completed_job_and_the_receipt_tells_what_went(scenario):
    await uploaded(scenario)
    scenario.fleet.clock.advance(SETTLES_S)
    stored = len(await blobs(scenario))
    await scenario.fleet.database.begin_deletion(KEY, "key_1")
    done = await carried_out(scenario, passes=1)
    await scenario.fleet.run()

    assert (await blobs(scenario), rows(scenario), scenario.fleet.status(*KEY)) == ([], [], None)
    assert done.receipt["blobs"] == stored > 4
    assert done.receipt["providers"] == {"a": 1, "b": 1}
    assert [(kept["what"], kept["until"] is None) for kept in done.receipt["kept"][-2:]] == [
        ("Kafka topic job.status", True),
        ("Kafka topic persisted", False),
    ]
    assert scenario.terminal() == [("persisted", "call 1", 1)]


async def test_a_pass_that_is_killed_anywhere_is_repeated_and_counts_the_same(scenario):
    for run, point in enumerate(DELETION_POINTS, 1):
        await uploaded(scenario)
        scenario.fleet.clock.advance(SETTLES_S)
        stored = len(await blobs(scenario))
        await scenario.fleet.database.begin_deletion(KEY, "key_1")
        scenario.kill_at = point
        with pytest.raises(Killed):
            await scenario.deleter.round()
        done = await carried_out(scenario)
        await scenario.fleet.run()

        assert (await blobs(scenario), rows(scenario), scenario.fleet.status(*KEY)) == ([], [], None)
        assert (done.run, done.receipt["blobs"], done.receipt["rows"]["jobs"]) == (run, stored, 1)
        assert done.receipt["providers"] == {"a": 1, "b": 1}
        scenario.fleet.clock.advance(1.0)


async def test_a_pass_that_fails_half_way_loses_no_count(scenario, monkeypatch):
    await uploaded(scenario)
    scenario.fleet.clock.advance(SETTLES_S)
    stored = len(await blobs(scenario))
    begun = await scenario.fleet.database.begin_deletion(KEY, "key_1")
    delete, left = scenario.store.delete, [2]

    async def failing(uri):
        if not left[0]:
            raise Unavailable("the store is away")
        left[0] -= 1
        await delete(uri)

    monkeypatch.setattr(scenario.store, "delete", failing)
    await scenario.deleter.round()
    put_off = await deletion(scenario)
    assert (put_off.error, len(await blobs(scenario))) == ("the store is away", stored - 2)
    monkeypatch.undo()
    done = await carried_out(scenario)

    assert done.receipt["blobs"] == stored
    assert done.receipt["rows"].items() >= begun.receipt["rows"].items()
    assert done.receipt["rows"] == put_off.receipt["rows"]


async def test_copies_at_a_vendor_that_never_answers_are_given_up_one_by_one(scenario, monkeypatch):
    monkeypatch.setattr("agents.upkeep.deleting.COPY_S", 0.01)
    monkeypatch.setattr("agents.upkeep.deleting.PATIENCE_S", -1.0)
    await uploaded(scenario)
    scenario.fleet.clock.advance(SETTLES_S)
    await scenario.fleet.database.begin_deletion(KEY, "key_1")
    erase = scenario.vendors.erase

    async def hanging(provider, copy):
        await asyncio.sleep(60 if provider == "a" else 0)
        return await erase(provider, copy)

    monkeypatch.setattr(scenario.vendors, "erase", hanging)
    done = await carried_out(scenario)

    assert {"what": "a", "why": "a does not answer", "until": None} in done.receipt["kept"]
    assert done.receipt["providers"] == {"b": 1}


async def test_a_job_that_is_deleted_on_its_way_ends_once_and_leaves_nothing(scenario):
    fleet = scenario.fleet
    for runs, steps in enumerate(range(2, 24), 1):
        await scenario.upload(reference="call 1")
        await handled(fleet, steps)
        if await fleet.database.begin_deletion(KEY, "key_1") is None:
            await fleet.run()
            await fleet.database.begin_deletion(KEY, "key_1")
        await scenario.deleter.round()
        await fleet.run()
        done = await carried_out(scenario)
        fleet.clock.advance(LAST_LOOK_S)
        await scenario.deleter.round()
        await fleet.run()

        assert (await blobs(scenario), rows(scenario), fleet.status(*KEY)) == ([], [], None), steps
        assert sorted(run for _, _, run in scenario.terminal()) == [*range(1, runs + 1)]
        assert (done.run, done.error, (await deletion(scenario)).due_at) == (runs, None, None)
        assert not [topic for topic in fleet.log if topic.endswith(".dlq")]
        fleet.clock.advance(1.0)
    assert {topic for topic, *_ in scenario.terminal()} == {"persisted", "job.failed"}


async def handled(fleet, steps):
    """Handle so many events, each when it is due."""
    for _ in range(steps):
        if not await fleet._one():
            due = min((due for due, _ in fleet.database.outbox), default=fleet.clock())
            fleet.clock.at = max(fleet.clock.at, due)
            fleet._relay()


async def test_the_same_reference_begins_anew_behind_what_was_deleted(scenario):
    await uploaded(scenario)
    first = await scenario.fleet.database.begin_deletion(KEY, "key_1")
    await scenario.deleter.round()
    scenario.fleet.clock.advance(1.0)
    await uploaded(scenario)
    await carried_out(scenario)
    job = await scenario.fleet.database.job(*KEY)

    assert scenario.terminal() == [("persisted", "call 1", 1), ("persisted", "call 1", 2)]
    assert (job.status, job.run, job.version > first.version) == ("completed", 2, True)
    assert scenario.fleet.status(*KEY).run == 2
    assert all(f"t/{JOB}/runs/2/" in uri for uri in await blobs(scenario))
    assert len(await blobs(scenario)) > 4

    second = await scenario.fleet.database.begin_deletion(KEY, "key_1")
    await carried_out(scenario)
    await scenario.fleet.run()
    assert (second.run, await blobs(scenario), rows(scenario)) == (2, [], [])


async def test_an_upload_that_came_before_the_deletion_does_not_bring_the_job_back(scenario):
    await uploaded(scenario)
    [record] = scenario.fleet.log["audio.uploaded"]
    scenario.fleet.clock.advance(1.0)
    await scenario.fleet.database.begin_deletion(KEY, "key_1")
    scenario.fleet.database._inbox.clear()  # it was another record, of the same recording
    scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    assert await scenario.fleet.database.job(*KEY) is None


async def test_what_a_vendor_does_not_delete_is_tried_for_a_day_and_then_reported(scenario):
    await uploaded(scenario)
    scenario.fleet.clock.advance(SETTLES_S)
    await scenario.fleet.database.begin_deletion(KEY, "key_1")
    scenario.vendors.errors = [Transient("the vendor is away")]
    await scenario.deleter.round()
    waiting = await deletion(scenario)
    assert (waiting.done_at, waiting.error, len(waiting.copies)) == (None, "the vendor is away", 1)
    assert await blobs(scenario) == []

    scenario.vendors.errors = [Transient("the vendor is away")] * 10_000
    passes = itertools.count()
    while (found := await deletion(scenario)).done_at is None:
        scenario.fleet.clock.at = max(scenario.fleet.clock.at, found.due_at)
        await scenario.deleter.round()
        assert next(passes) < 300
    assert {"what": "a", "why": "the vendor is away", "until": None} in found.receipt["kept"]
    assert found.receipt["providers"] == {"b": 1}


@pytest.mark.parametrize("over_http", [False, True])
async def test_files_alone_go_and_the_transcript_stays(scenario, over_http):
    await uploaded(scenario)
    scenario.fleet.clock.advance(SETTLES_S)
    database = scenario.fleet.database
    if over_http:  # what came in a request has no other URI than that of the original
        job = await database.job(*KEY)
        database._jobs[KEY] = adapter(Job).dump_json(replace(job, audio_uri=job.original_uri))
    before = await database.job(*KEY)
    begun = await database.begin_deletion(KEY, "retention", "files")
    await scenario.deleter.round()

    assert await blobs(scenario) == []
    assert database.deletions[begun.id].done_at is not None
    assert (await database.job(*KEY)).status == before.status == "completed"
    assert ("t", JOB, 1) in database.transcripts
    assert scenario.fleet.status(*KEY) is not None
