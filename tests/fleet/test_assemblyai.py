"""The fleet in memory with AssemblyAI and its SDK: whatever is lost, a recording is charged once a run."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from aiohttp.test_utils import TestServer

from agents.asr.assemblyai import AssemblyAI, Callback
from agents.asr.rate_limit import ProviderLimiter
from agents.media.decoding.decoder import decode as decoded
from agents.media.decoding.probe import probe
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import step
from agents.stages import transcribe
from agents.stages.asr_requests import remote
from schemas.envelope import decode
from schemas.errors import RateLimited, Unavailable
from schemas.events.job import JobReprocess
from tests.fleet.conftest import JOB, Scenario
from tests.servers.assemblyai import Server, Switches

DATA = Path(__file__).parents[1] / "data"
NAME = "assemblyai"
TOPIC = f"asr.requests.{NAME}"


@dataclass
class VendorCase:
    """A story and the provider in it."""

    scenario: Scenario
    server: Server
    recognizer: AssemblyAI

    @property
    def fleet(self):
        return self.scenario.fleet

    def charges(self):
        """How often each URL was charged."""
        return Counter(charge["audio_url"] for charge in self.server.ledger.charges)

    def calls(self):
        """How often each call was made."""
        return Counter(call for call, _ in self.server.calls)

    def switch(self, **switches):
        self.server.switches = Switches(**switches)
        self.server._changed.set()
        self.server._changed = asyncio.Event()

    async def ends_well(self, *, charges=1):
        await self.fleet.run()
        assert self.scenario.terminal() == [("persisted", JOB, 1)]
        assert sorted(self.charges().values()) == [1] * charges


@pytest.fixture
async def case(request, make_scenario, tmp_path):
    """A fleet whose only recognizer is AssemblyAI; it waits for days, or as many seconds as the parameter says."""
    deadline_s = getattr(request, "param", 5 * 86_400)
    server = Server(tmp_path / "ledger.jsonl")
    async with TestServer(server.app()) as running:
        recognizer = AssemblyAI(NAME, "key", str(running.make_url("/")), timeout_s=0.5)
        recognizer._list.apart_s = 0.0
        able = {NAME: frozenset({"diarize", "redact_pii"})}
        it = VendorCase(make_scenario(recognizer, deadline_s=deadline_s, abilities=able), server, recognizer)
        yield it
        it.switch()
        await recognizer.close()


def stage_of(case):
    return next(stage for stage in case.fleet.stages if stage.name == f"transcribe.{NAME}")


async def steps_to(case, state, job=JOB):
    """Run until the request is in this state, one event at a time; the newest record of the recognizer's topic."""
    for _ in range(100):
        rows = await case.fleet.database.requests("t", job, 1)
        if rows and (rows[0].state == state or (state == "uploaded" and rows[0].audio_url)):
            return case.fleet.log[TOPIC][-1]
        if not await case.fleet._one():
            case.fleet.clock.advance(1)
            case.fleet._relay()
    raise AssertionError(f"never {state}")


async def test_a_recording_is_uploaded_submitted_and_polled(case):
    await case.scenario.upload()
    await case.ends_well()

    [row] = await case.fleet.database.requests("t", JOB, 1)
    assert row.audio_url == case.server.ledger.charges[0]["audio_url"]
    assert case.calls() == {"upload": 1, "submit": 1, "poll": 1}
    assert case.fleet.database.transcripts["t", JOB, 1].text


async def test_a_recording_that_the_vendor_would_mishear_is_handed_over_as_it_is_decoded_here(
    case, tmp_path, monkeypatch
):
    copy, upload = tmp_path / "sent", case.recognizer.upload

    async def kept(request, audio):
        copy.write_bytes(b"".join([piece async for piece in audio.stream()]))
        assert (request.content_type, await audio.url()) == ("audio/flac", None)
        return await upload(request, audio)

    monkeypatch.setattr(case.recognizer, "upload", kept)
    await case.scenario.upload(content=(DATA / "two-tracks.m4a").read_bytes())
    await case.ends_well()

    sent, heard = (np.concatenate(list(decoded(path))) for path in (copy, DATA / "two-tracks.m4a"))

    assert probe(copy).format == "flac"
    assert np.abs(sent[: len(heard)] - heard).max() < 1e-3
    assert "track 2 was heard" in case.fleet.database.transcripts["t", JOB, 1].reconciliation_notes[0]


async def test_the_url_is_kept_before_it_is_submitted(case):
    await case.scenario.upload()
    await steps_to(case, "uploaded")

    [row] = await case.fleet.database.requests("t", JOB, 1)
    assert row.state == "waiting"
    assert row.audio_at == case.fleet.clock()
    assert case.charges() == {}


@pytest.mark.parametrize(
    "switches",
    [
        {"lose_answer": 1},
        {"garble": 1, "on": ["submit"]},
        {"mangle": 1, "on": ["submit"]},
        {"cut": 1, "on": ["submit"]},
        {"error_5xx": 2, "on": ["submit"]},
        {"refuse_429": 1, "on": ["submit"]},
        {"cut": 2, "on": ["upload"]},
        {"error_5xx": 9, "on": ["upload"]},
        {"garble": 1, "on": ["upload"]},
        {"error_5xx": 20, "on": ["poll"]},
        {"cut": 5, "on": ["poll"]},
        {"stall": 1, "on": ["submit"]},
        {"novel": True},
        {"bare": True, "lose_answer": 1},
    ],
    ids=str,
)
async def test_whatever_goes_wrong_it_is_charged_once_and_transcribed(case, switches):
    case.switch(**switches)
    await case.scenario.upload()
    await case.ends_well()


async def test_a_lost_answer_with_trouble_while_it_is_looked_for_is_charged_once(case):
    case.switch(lose_answer=1, error_5xx=1, on=["find"])
    await case.scenario.upload()
    await case.ends_well()

    assert case.calls()["submit"] == 1


@pytest.mark.parametrize("case", [3600], indirect=True)
async def test_a_provider_that_is_away_for_long_is_given_up_uncharged(case):
    case.switch(error_5xx=True)
    await case.scenario.upload()
    await case.fleet.run()

    assert case.scenario.terminal() == [("job.failed", JOB, 1)]
    assert case.charges() == {}


async def test_a_transcript_that_fails_there_fails_here_and_is_not_asked_again(case):
    case.switch(fail=True)
    await case.scenario.upload()
    await case.fleet.run()

    [failed] = case.fleet.events("job.failed")
    assert "unable to download" in failed["error"]
    assert case.charges().total() == 1


async def test_every_event_delivered_again_a_day_later_is_not_charged_again(case):
    await case.scenario.upload()
    await case.ends_well()
    case.fleet.clock.advance(86_400)
    for records in list(case.fleet.log.values()):
        for record in list(records):
            case.fleet.deliver_again(record)

    await case.ends_well()


async def test_an_event_redelivered_a_day_after_its_worker_died_finds_what_was_asked(case):
    """The worker died after the submission, before it was committed; nobody came for a day."""
    await case.scenario.upload()
    record = await steps_to(case, "uploaded")
    await step(stage_of(case), record)
    assert case.charges().total() == 1
    case.fleet.clock.advance(86_400)
    case.fleet.deliver_again(record)

    await case.ends_well()
    assert case.calls()["upload"] == 1


async def test_a_url_that_has_grown_old_is_replaced_before_anything_is_asked_with_it(case):
    await case.scenario.upload()
    record = await steps_to(case, "uploaded")
    [before] = await case.fleet.database.requests("t", JOB, 1)
    case.fleet.clock.advance(remote.STALE.total_seconds() + 1)
    case.fleet.deliver_again(record)
    await case.ends_well()
    [after] = await case.fleet.database.requests("t", JOB, 1)

    assert before.audio_url != after.audio_url
    assert list(case.charges()) == [after.audio_url]


async def test_two_workers_with_one_event_submit_once(case):
    await case.scenario.upload()
    record = await steps_to(case, "uploaded")
    one, two = await asyncio.gather(*(step(stage_of(case), record) for _ in range(2)))
    await case.fleet.database.commit([one])
    await case.fleet.database.commit([two])

    await case.ends_well()
    assert case.calls()["submit"] == 1


async def test_two_workers_that_upload_agree_on_one_url(case):
    await case.scenario.upload()
    record = await steps_to(case, "waiting")
    one, two = await asyncio.gather(*(step(stage_of(case), record) for _ in range(2)))
    await case.fleet.database.commit([one])
    await case.fleet.database.commit([two])

    await case.ends_well()
    assert case.calls()["submit"] == 1


async def test_a_long_upload_goes_on_outside_its_event_and_is_not_begun_again(case, monkeypatch):
    monkeypatch.setattr(remote, "WAIT_S", 0.05)
    received = asyncio.Event()
    upload = case.recognizer.upload

    async def slow(request, audio):
        await received.wait()
        return await upload(request, audio)

    monkeypatch.setattr(case.recognizer, "upload", slow)
    await case.scenario.upload()
    asyncio.get_running_loop().call_later(0.4, received.set)
    await case.ends_well()

    assert case.calls()["upload"] == 1
    assert len(case.fleet.log[TOPIC]) >= 3


async def test_an_upload_whose_worker_died_is_taken_over(case, monkeypatch):
    """Its lease runs out; until then nobody else begins another long upload."""
    monkeypatch.setattr(remote, "WAIT_S", 0.05)
    database = case.fleet.database
    dead = LeasedTasks(database, "dead", limit=1)
    hung = replace(
        stage_of(case),
        handle=transcribe.Transcribe(
            case.recognizer,
            database,
            case.scenario.store,
            dead,
            ProviderLimiter(case.scenario.fleet.database, "assemblyai"),
        ).handle,
    )
    await case.scenario.upload()
    record = await steps_to(case, "waiting")
    case.switch(stall=True, on=["upload"])
    await step(hung, record)
    for piece in list(dead._tasks.values()):
        piece.task.cancel()
    case.switch()
    case.fleet.deliver_again(record)

    await case.ends_well()
    await dead.close()


async def test_uploads_wait_for_a_pause_as_all_calls_do(case):
    await case.scenario.limiters[NAME].failed(RateLimited("not so fast", retry_after=300))
    await case.scenario.upload()
    await case.fleet.run(until=timedelta(seconds=290))

    assert case.calls() == {}
    await case.ends_well()
    assert case.calls() == {"upload": 1, "submit": 1, "poll": 1}


FIRST = "4711ca11-0000-4000-8000-000000000001"


async def test_an_upload_that_is_refused_makes_everybody_pause(case):
    case.switch(refuse_429=1, retry_after_s=300, on=["upload"])
    await case.scenario.upload(FIRST)
    await steps_to(case, "waiting", job=FIRST)
    await case.fleet.run(until=timedelta(seconds=1))
    await case.scenario.upload("second")
    await case.fleet.run(until=timedelta(seconds=290))

    assert case.calls() == {"upload": 1}
    await case.fleet.run()
    assert sorted(case.charges().values()) == [1, 1]


async def test_an_upload_counts_in_the_rate(case):
    case.scenario.limiters[NAME].interval_s = 0.5
    for number in range(3):
        await case.scenario.upload(f"j{number}")
    await case.fleet.run()
    uploads = [at for at, call in case.server.arrivals if call == "upload"]

    assert len(uploads) == 3
    assert all(later - earlier >= 0.4 for earlier, later in pairwise(uploads))
    assert len(case.scenario.terminal()) == 3


async def test_a_request_that_was_refused_is_made_again_without_being_looked_for(case):
    case.switch(refuse_429=1, on=["submit"])
    await case.scenario.upload()
    await case.ends_well()

    assert case.calls() == {"upload": 1, "submit": 2, "poll": 1}


async def test_our_own_store_being_away_is_waited_for(case, monkeypatch):
    await case.scenario.upload()
    record = await steps_to(case, "waiting")

    async def away(*_):
        raise Unavailable("the store is away")
        yield b""

    with monkeypatch.context() as patch:
        patch.setattr(case.scenario.store, "stream", away)
        with pytest.raises(Unavailable):
            await step(stage_of(case), record)

    await case.ends_well()


async def test_a_second_run_is_asked_and_charged_anew(case):
    case.switch(fail=True)
    await case.scenario.upload()
    await case.fleet.run()
    case.switch()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    case.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await case.fleet.run()

    assert case.scenario.terminal() == [("persisted", JOB, 2), ("job.failed", JOB, 1)]
    assert list(case.charges().values()) == [1, 1]


async def test_a_callback_brings_the_next_look_forward(case):
    """Looks are a minute apart when the provider calls; a call makes the next one due at once."""
    case.recognizer._callback = Callback("http://127.0.0.1:9/", "X-Token", "t")
    case.switch(delay_s=0.3)
    await case.scenario.upload()
    await steps_to(case, "submitted")
    await case.fleet.run(until=timedelta(seconds=10))
    began, polls = case.fleet.clock(), case.calls()["poll"]
    await asyncio.sleep(0.3)
    id = case.server.ledger.charges[0]["id"]

    assert await case.fleet.database.expedite_poll(NAME, id)
    await case.ends_well()
    ended = case.fleet.log["persisted"][0].timestamp_ms / 1000
    assert ended - began.timestamp() < 1
    assert case.calls()["poll"] == polls + 1


async def test_options_of_the_upload_reach_the_provider(case):
    await case.scenario.upload(language="en-US", options={"diarize": True, "redact_pii": True})
    await case.ends_well()

    wish = case.server.ledger.charges[0]["wish"]
    assert (wish["language_code"], wish["speaker_labels"], wish["redact_pii"]) == ("en_us", True, True)


async def test_no_url_is_on_the_stream(case):
    await case.scenario.upload()
    await case.ends_well()
    url = case.server.ledger.charges[0]["audio_url"].encode()

    for records in case.fleet.log.values():
        for record in records:
            assert url not in (record.value or b"")
            if record.topic == TOPIC:
                assert decode(record, stage_of(case).topics)
