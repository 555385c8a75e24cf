"""The fleet in memory with Google's batches and its SDK: whatever is lost, a recording is charged once a run, and no
object stays in the bucket.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import pytest
from aiohttp.test_utils import TestServer

from agents.asr.google.batch_recognize import GoogleBatch
from agents.runtime.stage import step
from agents.stages.asr_requests import remote
from schemas.events.job import JobReprocess
from tests.contract.test_recognizers import batch
from tests.fleet.conftest import JOB, FakeRecognizer, Scenario
from tests.servers import gcs
from tests.servers.google_speech import Server, Switches, serving

NAME = "google"
TOPIC = f"asr.requests.{NAME}"


@dataclass
class VendorCase:
    """A story, and both servers in it."""

    scenario: Scenario
    server: Server
    storage: gcs.Server
    recognizer: GoogleBatch

    @property
    def fleet(self):
        return self.scenario.fleet

    @property
    def stage(self):
        return next(stage for stage in self.fleet.stages if stage.name == f"transcribe.{NAME}")

    def charges(self):
        """How often each URI was charged."""
        return Counter(charge["uri"] for charge in self.server.ledger.charges)

    async def steps_to(self, state):
        """Run until the request is in this state, one event at a time; the newest record of the recognizer's topic."""
        for _ in range(100):
            rows = await self.fleet.database.requests("t", JOB, 1)
            if rows and (rows[0].state == state or (state == "uploaded" and rows[0].audio_url)):
                return self.fleet.log[TOPIC][-1]
            if not await self.fleet._one():
                self.fleet.clock.advance(1)
                self.fleet._relay()
        raise AssertionError(f"never {state}")

    async def ends_well(self, *, left=0):
        await self.fleet.run()
        assert self.scenario.terminal() == [("persisted", JOB, 1)]
        assert list(self.charges().values()) == [1]
        assert len(self.storage.objects) == left


@pytest.fixture
async def case(make_scenario, tmp_path):
    """A fleet whose only recognizer is Google's, by batches; it waits for days."""
    storage = gcs.Server(tmp_path)
    async with TestServer(storage.app()) as lent:
        lending = str(lent.make_url("")).rstrip("/")
        server = Server(tmp_path / "ledger.jsonl", storage=lending)
        async with serving(server) as endpoint:
            recognizer = batch(endpoint, lending, timeout_s=5.0)
            able = {NAME: frozenset({"diarize"})}
            it = VendorCase(
                make_scenario(recognizer, deadline_s=5 * 86_400, abilities=able), server, storage, recognizer
            )
            recognizer._list.clock = lambda: it.fleet.clock().timestamp()
            recognizer._list.apart_s = 0.0
            yield it
            await recognizer.close()
            storage.changed()


async def test_a_recording_is_lent_asked_about_once_and_taken_back(case):
    await case.scenario.upload()
    await case.ends_well()

    [row] = await case.fleet.database.requests("t", JOB, 1)
    assert row.audio_url == case.server.ledger.charges[0]["uri"]
    assert row.provider_id == case.server.ledger.charges[0]["id"]
    assert case.server.called == {"batch": 1, "get": 1}
    assert case.fleet.database.transcripts["t", JOB, 1].text


async def test_its_transcript_is_reconciled_with_the_others(case, make_scenario):
    both = make_scenario(case.recognizer, FakeRecognizer("a"))
    await both.upload()
    await both.fleet.run()

    assert both.terminal() == [("persisted", JOB, 1)]
    assert list(case.charges().values()) == [1]


@pytest.mark.parametrize(
    ("speech", "storage"),
    [
        ({"lose_answer": 1}, {}),
        ({"garbage": 1, "on": ["batch"]}, {}),
        ({"unavailable": 3, "on": ["batch"]}, {}),
        ({"refuse_429": 1, "on": ["batch"]}, {}),
        ({"internal": 2, "on": ["get"]}, {}),
        ({"unavailable": 20, "on": ["get"]}, {}),
        ({"garbage": 1, "on": ["get"]}, {}),
        ({"stall": 1, "on": ["batch"]}, {}),
        ({}, {"error_5xx": 9, "on": ["put"]}),
        ({}, {"refuse_429": 2, "on": ["put"]}),
        ({"lose_answer": 1, "delay_s": 0.5}, {"error_5xx": 1, "on": ["put"]}),
    ],
    ids=str,
)
async def test_whatever_goes_wrong_it_is_charged_once_and_transcribed(case, speech, storage):
    case.server.switches, case.storage.switches = Switches(**speech), gcs.Switches(**storage)
    await case.scenario.upload()
    await case.ends_well()


async def test_a_lost_answer_with_trouble_while_it_is_looked_for_is_charged_once(case):
    case.server.switches = Switches(lose_answer=1, garbage=2, on=["list"])
    await case.scenario.upload()
    await case.ends_well()

    assert case.server.called["batch"] == 1
    assert case.server.called["list"] >= 3


async def test_what_may_be_among_operations_that_do_not_say_what_they_are_about_is_parked(case):
    case.server.switches = Switches(lose_answer=1, mute=True)
    await case.scenario.upload()
    await case.fleet.run(until=timedelta(hours=1))
    [row] = await case.fleet.database.requests("t", JOB, 1)

    assert row.state == "parked"
    assert "do not say what they are about" in row.error
    case.server.switches = Switches()
    await case.ends_well()


async def test_an_answer_to_an_upload_that_was_lost_leaves_an_object_behind_and_no_charge(case):
    case.storage.switches = gcs.Switches(lose_answer=1)
    await case.scenario.upload()
    await case.ends_well(left=1)


async def test_a_request_that_fails_there_fails_here_and_is_not_asked_again(case):
    case.server.switches = Switches(file_error=True)
    await case.scenario.upload()
    await case.fleet.run()

    [failed] = case.fleet.events("job.failed")
    assert "could not transcribe it" in failed["error"]
    assert list(case.charges().values()) == [1]
    assert case.storage.objects == {}


async def test_an_operation_that_has_expired_is_not_asked_again(case):
    case.server.switches = Switches(delay_s=3600)
    await case.scenario.upload()
    await case.steps_to("submitted")
    case.server.switches = Switches(forgotten=True)
    await case.fleet.run()

    [failed] = case.fleet.events("job.failed")
    assert "no longer has the operation" in failed["error"]
    assert list(case.charges().values()) == [1]


async def test_an_event_redelivered_after_its_worker_died_finds_what_was_asked(case):
    """The worker died after the submission, before it was committed; the claim ran out meanwhile."""
    await case.scenario.upload()
    record = await case.steps_to("uploaded")
    await step(case.stage, record)
    assert case.charges().total() == 1
    case.fleet.clock.advance(60)
    case.fleet.deliver_again(record)

    await case.ends_well()
    assert case.server.called["batch"] == 1


async def test_an_answer_that_was_read_and_not_stored_is_read_again(case):
    """The worker died between the poll, which deletes the object, and the commit."""
    await case.scenario.upload()
    record = await case.steps_to("submitted")
    await step(case.stage, record)
    assert case.storage.objects == {}
    case.fleet.deliver_again(record)

    await case.ends_well()


async def test_two_workers_with_one_event_submit_once(case):
    await case.scenario.upload()
    record = await case.steps_to("uploaded")
    one, two = await asyncio.gather(*(step(case.stage, record) for _ in range(2)))
    await case.fleet.database.commit([one])
    await case.fleet.database.commit([two])

    await case.ends_well()
    assert case.server.called["batch"] == 1


async def test_an_object_that_has_lain_for_long_is_replaced_and_the_newer_one_asked_about(case):
    await case.scenario.upload()
    await case.steps_to("uploaded")
    case.fleet.clock.advance(remote.STALE.total_seconds() + 1)

    await case.ends_well(left=1)


async def test_a_second_run_is_asked_and_charged_anew(case):
    case.server.switches = Switches(file_error=True)
    await case.scenario.upload()
    await case.fleet.run()
    case.server.switches = Switches()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    case.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await case.fleet.run()

    assert case.scenario.terminal() == [("persisted", JOB, 2), ("job.failed", JOB, 1)]
    assert list(case.charges().values()) == [1, 1]


async def test_options_of_the_upload_reach_google(case):
    await case.scenario.upload(language="en-GB", options={"diarize": True})
    await case.ends_well()

    asked = case.server.ledger.charges[0]["request"]
    assert '"en-GB"' in asked
    assert "diarizationConfig" in asked
