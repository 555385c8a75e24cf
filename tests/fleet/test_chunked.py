"""A recognizer that bills chunk by chunk, beside others: the cost of failures, and chunks that are never charged
twice.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from agents.asr.response_cache import StoredResponses
from agents.stages import transcribe
from schemas.errors import RateLimited, Unavailable
from schemas.events.job import JobReprocess
from sinks.blobs.memory import MemoryStore
from tests.contract.test_recognizers_in_pieces import SPEAKERS, VENDORS
from tests.fleet.conftest import JOB, FakeRecognizer, recording
from tests.servers.google_speech import bursts


class Vendor:
    """A vendor on this machine, and a recognizer that asks it."""

    def __init__(self, server, recognizer, switches):
        self.server, self.recognizer, self._switches = server, recognizer, switches

    def switch(self, **switches):
        self.server.switches = self._switches(**switches)


@pytest.fixture(params=VENDORS)
async def vendor(request, tmp_path):
    make, serve, opened, switches = VENDORS[request.param]
    server = make(tmp_path / "ledger.jsonl")
    async with serve(server) as url:
        recognizer = opened(url, 10.0, retries=0, parallel=1)
        yield Vendor(server, recognizer, switches)
        await recognizer.close()
    server.ledger.close()


async def test_its_transcript_is_reconciled_with_the_others(vendor, make_scenario):
    scenario = make_scenario(vendor.recognizer, FakeRecognizer("a"))
    await scenario.upload(content=recording(3))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert set(vendor.server.charges().values()) == {1}


async def test_alone_it_makes_a_transcript_and_its_usage_is_what_was_billed(vendor, make_scenario):
    scenario = make_scenario(vendor.recognizer)
    await scenario.upload(content=recording(60))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert "F420" in scenario.fleet.database.transcripts["t", JOB, 1].text.upper()
    billed = {"audio_seconds": sum(charge["billed"] for charge in vendor.server.ledger.charges)}
    billed["requests"] = len(vendor.server.ledger.charges)
    assert {usage.unit: usage.quantity for usage, _ in scenario.fleet.database._usage.values()} == billed


async def test_a_second_run_is_not_billed_for_answers_of_the_first(vendor, make_scenario):
    scenario = make_scenario(vendor.recognizer)

    def once(samples, rate):
        vendor.switch(forbidden=True)
        return bursts(samples, rate)

    vendor.server.hear = once
    await scenario.upload(content=recording(130))
    await scenario.fleet.run()
    assert scenario.terminal() == [("job.failed", JOB, 1)]
    told_already = vendor.server.charges().total()

    vendor.server.hear = bursts
    vendor.switch()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await scenario.fleet.run()

    assert ("persisted", JOB, 2) in scenario.terminal()
    assert 0 < told_already < vendor.server.charges().total()
    assert set(vendor.server.charges().values()) == {1}


async def test_answers_that_are_lost_for_ever_are_not_paid_for_for_ever(vendor, make_scenario, monkeypatch):
    monkeypatch.setattr(transcribe, "WAIT_S", 0.2)
    vendor.switch(lose_answer=True, delay_s=0.5)  # longer than one look
    scenario = make_scenario(vendor.recognizer, FakeRecognizer("a"))
    await scenario.upload(content=recording(3))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert list(vendor.server.charges().values()) == [4]  # the first time, and three retries


async def test_with_one_slot_one_recording_is_submitted_and_the_others_queue(vendor, make_scenario):
    name = vendor.recognizer.name
    scenario = make_scenario(vendor.recognizer, slots={name: 1})
    heard: list[str] = []

    async def look():
        """What holds a place, before every event."""
        await scenario.limiters[name].refresh()
        assert scenario.limiters[name].traffic.under_way <= 1

    for number in range(3):
        await scenario.upload(f"j{number}", content=recording(3))
    for _ in range(100):
        await look()
        await scenario.fleet.run(until=timedelta(seconds=0.5))
        scenario.fleet.clock.advance(1)
        heard += [e["reference"] for e in scenario.fleet.events("asr.results") if e["reference"] not in heard]

    assert heard == ["j0", "j1", "j2"]  # the oldest first
    assert vendor.server.charges().total() == 3


async def test_a_long_pause_is_for_everybody_and_is_no_try(vendor, make_scenario):
    """Refused for much longer than three tries take: nobody calls within a pause, and what was heard is kept."""
    scenario = make_scenario(vendor.recognizer, deadline_s=86_400)

    def first(samples, rate):
        vendor.switch(refuse_429=6, retry_after_s=300)
        vendor.server.hear = bursts
        return bursts(samples, rate)

    vendor.server.hear = first
    await scenario.upload("long", content=recording(130))
    await scenario.upload("short", content=recording(3))
    began = scenario.fleet.clock()
    await scenario.fleet.run()

    ends = zip(scenario.fleet.events("persisted"), scenario.fleet.log["persisted"], strict=True)
    ended = {event["reference"]: record.timestamp_ms / 1000 - began.timestamp() for event, record in ends}
    assert set(ended) == {"long", "short"}
    assert ended["long"] >= 6 * 300
    assert set(vendor.server.charges().values()) == {1}
    calls = vendor.server.charges().total() + 6  # a call a pause, and none to hear what was heard
    assert len(vendor.server.arrivals) == calls


async def test_a_recording_is_not_begun_within_a_pause(vendor, make_scenario):
    scenario = make_scenario(vendor.recognizer)
    await scenario.limiters[vendor.recognizer.name].failed(RateLimited("not so fast", retry_after=500))
    await scenario.upload(content=recording(3))
    await scenario.fleet.run(until=timedelta(seconds=400))

    assert vendor.server.arrivals == []
    assert not scenario.fleet.log["asr.results"]
    await scenario.fleet.run()
    assert scenario.terminal() == [("persisted", JOB, 1)]


@pytest.mark.parametrize("vendor", SPEAKERS, indirect=True)
async def test_speakers_are_told_apart_by_one_request_about_the_whole_recording(vendor, make_scenario):
    scenario = make_scenario(vendor.recognizer, abilities={vendor.recognizer.name: frozenset({"diarize"})})
    await scenario.upload(content=recording(130), options={"diarize": True})
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert [round(charge["seconds"]) for charge in vendor.server.ledger.charges] == [130]
    [uri] = [uri async for uri in scenario.store.list("t/") if "/hypotheses/" in uri]
    assert json.loads(await scenario.store.get(uri))["words"][0]["speaker"]


@pytest.mark.parametrize("vendor", SPEAKERS, indirect=True)
async def test_a_whole_recording_whose_answers_are_lost_is_paid_for_twice_at_most(vendor, make_scenario):
    scenario = make_scenario(vendor.recognizer, abilities={vendor.recognizer.name: frozenset({"diarize"})})
    vendor.switch(lose_answer=True)
    await scenario.upload(content=recording(3), options={"diarize": True})
    await scenario.fleet.run()
    [failed] = scenario.fleet.events("job.failed")

    assert "sent whole 2 times, and the answers were lost" in failed["error"]
    assert list(vendor.server.charges().values()) == [2]


class Away(MemoryStore):
    """A store that is away for the next calls."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    async def put(self, name, content, content_type):
        if self.calls:
            self.calls -= 1
            raise Unavailable("the store is away")
        return await super().put(name, content, content_type)


async def test_an_answer_that_is_paid_for_waits_for_the_store():
    answers = StoredResponses(Away(1), "t", "j", "google")
    assert await answers.get("k") is None

    await answers.put("k", b"{}")

    assert await answers.get("k") == b"{}"


async def test_an_answer_that_is_paid_for_is_stored_although_who_asked_is_out_of_time():
    answers = StoredResponses(Away(1), "t", "j", "google")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answers.put("k", b"{}"), 0.05)
    await answers.paid.settled(("t", "j", "google"))

    assert await answers.get("k") == b"{}"
