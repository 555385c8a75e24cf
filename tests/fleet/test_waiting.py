"""Runs that wait as rows: until a time, or because their tenant may have so many jobs open at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agents.media.source.audio_source import AudioSource
from agents.stages.uploads.received import ReceivedUploads
from agents.stages.uploads.runs import Runs
from schemas.accounts.settings import AccountSettings
from schemas.events.audio import AudioUploaded
from schemas.events.job import JobReprocess
from sinks.accounts import Accounts
from sinks.fair_slots import FairSlots
from tests.fleet.conftest import JOB, FakeRecognizer, recording


@pytest.fixture
def scenario(make_scenario):
    return make_scenario(FakeRecognizer("a", polls=2), FakeRecognizer("b"))


@pytest.fixture
def database(scenario):
    return scenario.fleet.database


@pytest.fixture
def received(scenario, database, probe_pool):
    accounts = Accounts(database, AccountSettings(), seconds=0)
    audio_source = AudioSource(scenario.store, probe_pool, ())
    return ReceivedUploads(database, audio_source, Runs(("a", "b"), 3600.0), accounts, FairSlots(6, 5))


async def limit(database, most: int) -> None:
    await database.save_account_settings("t", AccountSettings(max_open_jobs=most), 0, "x")


async def settle(scenario) -> None:
    """Everything that begins or goes on by itself."""
    await scenario.fleet.run(until=timedelta(minutes=5))
    while await scenario.fleet.database.admit_uploads({}, 8):
        await scenario.fleet.run(until=timedelta(minutes=5))


def most_open(scenario) -> int:
    """How many jobs were open at the same time, by their statuses."""
    current, most = {}, 0
    for status in scenario.fleet.events("job.status"):
        waits = status["status"] == "uploaded" and status["steps"]["intake"]["state"] == "waiting"
        current[status["job_id"]] = status["status"] not in ("completed", "failed") and not waits
        most = max(most, sum(current.values()))
    return most


async def test_uploads_of_a_limited_tenant_wait_and_all_of_them_are_transcribed(scenario, database):
    await limit(database, 2)
    for n in range(5):
        await scenario.upload(None, reference=f"r{n}")
    await scenario.upload(None, tenant="free", reference="f")
    await scenario.fleet.run(until=timedelta(minutes=5))
    assert scenario.terminal() == [("persisted", "f", 1)]

    await settle(scenario)
    assert len(scenario.terminal()) == 6
    assert most_open(scenario) == 2


async def test_a_run_that_is_not_admitted_for_hours_waits_on_and_does_nothing(scenario, database):
    await limit(database, 1)
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(hours=5))
    [job] = database.all_jobs()

    assert job.is_queued
    assert len(scenario.fleet.events("intake.due")) == 5
    assert len(scenario.fleet.events("job.status")) == 1
    await settle(scenario)
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_an_event_that_comes_while_its_run_is_admitted_leaves_it_queued(scenario, database):
    """Its own event was put off before the run was admitted; else nobody would go on with it for an hour."""
    await limit(database, 1)
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(minutes=5))
    scenario.fleet.clock.advance(3600)
    scenario.fleet._relay()
    original = database.job

    async def read_before_it_is_admitted(tenant_id, job_id):
        job = await original(tenant_id, job_id)
        await database.admit_uploads({}, 8)
        return job

    database.job = read_before_it_is_admitted
    assert await scenario.fleet._one()
    database.job = original
    assert database.all_jobs()[0].is_queued
    await settle(scenario)
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_recording_in_a_request_is_stored_and_waits_its_turn(scenario, database, received, tmp_path):
    await limit(database, 1)
    path = tmp_path / "audio"
    path.write_bytes(recording())
    upload = AudioUploaded(tenant_id="t", job_id=JOB, audio_uri="upload://body", filename="call.wav")
    job, _ = await received.create(upload, path, "somebody")

    assert (job.is_queued, job.duration_ms) == (True, 500)
    assert [file.kind for file in database.files.values()] == ["original"]
    await settle(scenario)
    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert await scenario.store.get(job.original_uri) == recording()


async def test_a_later_run_waits_its_turn_and_does_what_was_asked_for(scenario, database, received):
    await scenario.upload()
    await settle(scenario)
    await limit(database, 1)
    await scenario.upload(None, reference="another")
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2, recognizers=("b",))
    job = await received.reprocess(await database.job("t", JOB), again, "somebody")
    assert job.is_queued

    await settle(scenario)
    assert scenario.terminal()[1:] == [("persisted", JOB, 2), ("persisted", "another", 1)]
    assert {name: one.charges.total() for name, one in scenario.recognizers.items()} == {"a": 2, "b": 3}


async def test_a_queued_run_is_cancelled_like_any_other(scenario, database, received):
    await limit(database, 1)
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(minutes=5))
    await received.cancel(await database.job("t", JOB), "not wanted", "somebody")
    await scenario.fleet.run(until=timedelta(hours=5))

    assert scenario.terminal() == [("job.failed", JOB, 1)]
    assert await database.admit_uploads({}, 8) == []


async def test_an_upload_with_a_time_begins_then_and_not_before(scenario, database):
    begins = scenario.fleet.clock() + timedelta(days=2)
    await scenario.upload(not_before=begins.isoformat())
    await scenario.upload(None, reference="at once", not_before="2020-01-01T00:00:00+02:00")
    await settle(scenario)
    assert scenario.terminal() == [("persisted", "at once", 1)]
    status = scenario.fleet.status("t", JOB)
    assert (status.status, status.not_before, status.steps["intake"].state) == ("uploaded", begins, "waiting")

    await scenario.store.delete(scenario.store.uri(f"t/in/{JOB}.wav"))  # its link does not hold so long
    scenario.fleet.clock.advance(2 * 86_400)
    await settle(scenario)
    assert scenario.terminal()[1:] == [("persisted", JOB, 1)]
    assert len(scenario.fleet.events("intake.due")) == 1


async def test_what_is_no_recording_is_told_at_once_and_not_when_its_time_comes(scenario):
    begins = scenario.fleet.clock() + timedelta(days=2)
    await scenario.upload(content=b"no recording", not_before=begins.isoformat())
    await scenario.fleet.run(until=timedelta(minutes=5))

    [failed] = scenario.fleet.events("job.failed")
    assert failed["code"] == "refused_media"


async def test_a_recording_that_is_fetched_after_it_was_queued_waits_until_its_time(scenario, database):
    await limit(database, 1)
    begins = scenario.fleet.clock() + timedelta(hours=5)
    await scenario.upload(not_before=begins.isoformat())
    await scenario.upload(None, reference="another")
    await settle(scenario)
    job = await database.job("t", JOB)
    assert (job.is_queued, job.queued_at, job.duration_ms) == (True, begins, 500)
    assert [file.kind for key, file in database.files.items() if key[1] == JOB] == ["original"]
    assert scenario.terminal() == [("persisted", "another", 1)]

    scenario.fleet.clock.advance(5 * 3600)
    await settle(scenario)
    assert scenario.terminal()[1:] == [("persisted", JOB, 1)]


async def test_a_time_that_is_too_far_ahead_is_refused(scenario):
    begins = scenario.fleet.clock() + timedelta(days=91)
    await scenario.upload(not_before=begins.isoformat())
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert (failed["code"], "more than 90 days ahead" in failed["error"]) == ("invalid_input", True)


@pytest.mark.parametrize("moment", ["tomorrow", "2026-01-02T00:00:00", 1767312000])
async def test_a_time_that_is_none_is_refused(scenario, moment):
    await scenario.upload(not_before=moment)
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert (failed["code"], "not_before" in failed["error"]) == ("malformed_event", True)


async def test_a_recording_in_a_request_waits_until_its_time_and_a_later_run_does_not(
    scenario, database, received, tmp_path
):
    path = tmp_path / "audio"
    path.write_bytes(recording())
    begins = scenario.fleet.clock() + timedelta(hours=5)
    upload = AudioUploaded(tenant_id="t", job_id=JOB, audio_uri="upload://body", filename="call.wav", not_before=begins)
    job, _ = await received.create(upload, path, "somebody")
    await settle(scenario)
    assert (job.is_queued, scenario.terminal()) == (True, [])

    scenario.fleet.clock.advance(5 * 3600)
    await settle(scenario)
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    job = await received.reprocess(await database.job("t", JOB), again, "somebody")
    assert (job.is_queued, job.not_before) == (False, None)
    await settle(scenario)
    assert scenario.terminal() == [("persisted", JOB, 1), ("persisted", JOB, 2)]
