"""Recordings that come over HTTP, on the way through the stages: each is one job, and is fetched once or never."""

from __future__ import annotations

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

RECOGNIZERS = ("a", "b")


@pytest.fixture
def scenario(make_scenario):
    return make_scenario(*map(FakeRecognizer, RECOGNIZERS))


@pytest.fixture
def received(scenario, probe_pool):
    database = scenario.fleet.database
    accounts = Accounts(database, AccountSettings())
    return ReceivedUploads(
        database, AudioSource(scenario.store, probe_pool, ()), Runs(RECOGNIZERS, 3600.0), accounts, FairSlots(6, 5)
    )


def upload(uri="upload://body", **more):
    return AudioUploaded(tenant_id="t", job_id=JOB, audio_uri=uri, filename="call.wav", **more)


async def finished(scenario, run=1):
    await scenario.fleet.run()
    assert scenario.terminal()[-1] == ("persisted", JOB, run)


async def test_a_recording_in_a_request_goes_its_way_once(scenario, received, tmp_path):
    path = tmp_path / "audio"
    path.write_bytes(recording())
    job, is_new = await received.create(upload(), path, "somebody")
    await finished(scenario)

    assert (job.status, is_new) == ("transcribing", True)
    assert len(scenario.fleet.events("audio.uploaded")) == 1
    assert scenario.terminal() == [("persisted", JOB, 1)]
    audited = [(entry.step, entry.what) for entry, _ in scenario.fleet.database.audit.values()]
    assert [entry for entry in audited if entry[0] in ("upload", "intake")] == [("upload", "completed")]


async def test_a_recording_in_the_store_becomes_the_jobs_original(scenario, received):
    staged = await scenario.store.put("t/uploads/1", recording(), "application/octet-stream")
    await scenario.fleet.database.hold_blob(("t", JOB), staged.uri, 3600)
    job, is_new = await received.create_from_store(upload(staged.uri), "somebody")
    await finished(scenario)

    assert (job.status, is_new) == ("uploaded", True)
    assert (await scenario.store.get(scenario.store.uri(f"t/{JOB}/original.wav"))) == recording()
    assert await scenario.fleet.database.orphan_blobs(0, 0, 10) == [staged.uri]


async def test_a_later_run_asks_those_recognizers_again_that_it_names(scenario, received, tmp_path):
    path = tmp_path / "audio"
    path.write_bytes(recording())
    job, _ = await received.create(upload(), path, "somebody")
    await finished(scenario)
    for run, (wanted, charged) in enumerate(
        [
            ({}, {"a": 1, "b": 1}),
            ({"source": "reconcile"}, {"a": 1, "b": 1}),
            ({"recognizers": ("b",)}, {"a": 1, "b": 2}),
            ({"source": "transcribe"}, {"a": 2, "b": 3}),
        ],
        2,
    ):
        job = await scenario.fleet.database.job("t", JOB)
        await received.reprocess(job, JobReprocess(tenant_id="t", job_id=JOB, run=run, **wanted), "somebody")
        await finished(scenario, run)
        assert {name: one.charges.total() for name, one in scenario.recognizers.items()} == charged
