"""A recognizer that bills chunk by chunk, beside others: the cost of failures, and chunks that are never charged
twice.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from agents.asr.google.recognize import Google
from agents.asr.google.speech import Speech
from agents.asr.response_cache import StoredResponses
from agents.stages import transcribe
from schemas.errors import RateLimited, Unavailable
from schemas.events.job import JobReprocess
from sinks.blobs.memory import MemoryStore
from tests.fleet.conftest import JOB, FakeRecognizer, recording
from tests.servers.google_speech import Server, Switches, bursts, serving


@pytest.fixture
async def server(tmp_path):
    """Google on this machine, and a recognizer that asks it."""
    server = Server(tmp_path / "ledger.jsonl")
    async with serving(server) as endpoint:
        google = Google(Speech("google", project="p", endpoint=endpoint), retries=0, parallel=1)
        yield server, google
        await google.close()
    server.ledger.close()


async def test_its_transcript_is_reconciled_with_the_others(server, make_scenario):
    scenario = make_scenario(server[1], FakeRecognizer("a"))
    await scenario.upload(content=recording(3))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert set(server[0].charges().values()) == {1}


async def test_a_second_run_is_not_billed_for_answers_of_the_first(server, make_scenario):
    served, google = server
    scenario = make_scenario(google)

    def once(samples, rate):
        served.switches = Switches(forbidden=True)
        return bursts(samples, rate)

    served.hear = once
    await scenario.upload(content=recording(130))
    await scenario.fleet.run()
    assert scenario.terminal() == [("job.failed", JOB, 1)]
    told_already = served.charges().total()

    served.hear, served.switches = bursts, Switches()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await scenario.fleet.run()

    assert ("persisted", JOB, 2) in scenario.terminal()
    assert 0 < told_already < served.charges().total()
    assert set(served.charges().values()) == {1}


async def test_answers_that_are_lost_for_ever_are_not_paid_for_for_ever(server, make_scenario, monkeypatch):
    monkeypatch.setattr(transcribe, "WAIT_S", 0.2)
    server[0].switches = Switches(lose_answer=True, delay_s=0.5)  # longer than one look
    scenario = make_scenario(server[1], FakeRecognizer("a"))
    await scenario.upload(content=recording(3))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert list(server[0].charges().values()) == [4]  # the first time, and three retries


async def test_with_one_slot_one_recording_is_submitted_and_the_others_queue(server, make_scenario):
    scenario = make_scenario(server[1], slots={"google": 1})
    heard: list[str] = []

    async def look():
        """What holds a place, before every event."""
        await scenario.limiters["google"].refresh()
        assert scenario.limiters["google"].traffic.under_way <= 1

    for number in range(3):
        await scenario.upload(f"j{number}", content=recording(3))
    for _ in range(100):
        await look()
        await scenario.fleet.run(until=timedelta(seconds=0.5))
        scenario.fleet.clock.advance(1)
        heard += [e["reference"] for e in scenario.fleet.events("asr.results") if e["reference"] not in heard]

    assert heard == ["j0", "j1", "j2"]  # the oldest first
    assert server[0].charges().total() == 3


async def test_a_long_pause_is_for_everybody_and_is_no_try(server, make_scenario):
    """Refused for much longer than three tries take: nobody calls within a pause, and what was heard is kept."""
    served, google = server
    scenario = make_scenario(google, deadline_s=86_400)

    def first(samples, rate):
        served.switches = Switches(refuse_429=6, retry_after_s=300)
        served.hear = bursts
        return bursts(samples, rate)

    served.hear = first
    await scenario.upload("long", content=recording(130))
    await scenario.upload("short", content=recording(3))
    began = scenario.fleet.clock()
    await scenario.fleet.run()

    ends = zip(scenario.fleet.events("persisted"), scenario.fleet.log["persisted"], strict=True)
    ended = {event["reference"]: record.timestamp_ms / 1000 - began.timestamp() for event, record in ends}
    assert set(ended) == {"long", "short"}
    assert ended["long"] >= 6 * 300
    assert set(served.charges().values()) == {1}
    assert len(served.arrivals) == served.charges().total() + 6  # a call a pause, and none to hear what was heard


async def test_a_recording_is_not_begun_within_a_pause(server, make_scenario):
    scenario = make_scenario(server[1])
    await scenario.limiters["google"].failed(RateLimited("not so fast", retry_after=500))
    await scenario.upload(content=recording(3))
    await scenario.fleet.run(until=timedelta(seconds=400))

    assert server[0].arrivals == []
    assert not scenario.fleet.log["asr.results"]
    await scenario.fleet.run()
    assert scenario.terminal() == [("persisted", JOB, 1)]


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
