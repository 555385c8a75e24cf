"""Scenarios of one recording: success, failures of providers, invalid uploads, and events that are delivered twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from agents.commands.operations.verify import find_faults
from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient
from schemas.events.job import JobReprocess
from tests.fleet.conftest import JOB, FakeRecognizer, recording

DATA = Path(__file__).parents[1] / "data"


async def test_a_recording_becomes_a_transcript(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), FakeRecognizer("b", text="hello their world"))
    await scenario.upload()
    await scenario.fleet.run()

    [done] = scenario.fleet.events("persisted")
    optimized = orjson.loads(await scenario.store.get(done["agent_optimized_uri"]))
    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert optimized["transcript"]["text"].split()[0] == "hello"
    assert done["word_count"] == 3
    assert scenario.fleet.status("t", JOB).status == "completed"
    assert scenario.fleet.database.transcripts["t", JOB, 1].method == "calibrated"
    assert await scenario.fleet.database.idle()
    faults = [fault async for fault in find_faults(scenario.fleet.database, scenario.store)]
    assert [(fault.kind, fault.job_id) for fault in faults] == [("nobody's", "in")]  # its producer's own blob


async def test_every_status_is_newer_than_the_one_before(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", polls=3), FakeRecognizer("b"))
    await scenario.upload()
    await scenario.fleet.run()
    said = scenario.fleet.events("job.status")

    assert [s["version"] for s in said] == list(range(1, len(said) + 1))
    assert [s["status"] for s in said][-1] == "completed"
    assert said[-1]["steps"]["transcribe.a"]["state"] == "done"
    assert {0.25, 0.5, 0.75} <= {s["steps"].get("transcribe.a", {}).get("progress") for s in said}


async def test_the_same_upload_twice_is_one_job(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    record = await scenario.upload()
    await scenario.fleet.run()
    scenario.fleet.deliver_again(record)
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert set(scenario.recognizers["a"].charges.values()) == {1}


async def test_the_same_cloudevent_without_a_job_id_is_one_job(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    for _ in range(2):
        await scenario.upload(None, headers=(("ce_id", b"7"), ("ce_source", b"/crm")))
    await scenario.fleet.run()

    assert len(scenario.terminal()) == 1


async def test_every_event_delivered_twice_changes_nothing(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", polls=1), FakeRecognizer("b", text="hello their world"))
    await scenario.upload()
    await scenario.fleet.run()
    before = {topic: len(records) for topic, records in scenario.fleet.log.items()}
    for records in list(scenario.fleet.log.values()):
        for record in list(records):
            scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    assert {topic: len(records) for topic, records in scenario.fleet.log.items()} == before
    assert all(set(s.charges.values()) == {1} for s in scenario.recognizers.values())


async def test_one_recognizer_that_fails_leaves_the_others_words(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="fails"), FakeRecognizer("b"))
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.fleet.events("reconciled")[0]["method"] == "single"
    notes = scenario.fleet.database.transcripts["t", JOB, 1].reconciliation_notes
    assert any("one recognizer" in note for note in notes)
    assert len(scenario.fleet.log["asr.requests.a.dlq"]) == 1


async def test_when_all_recognizers_fail_the_job_fails_once_with_their_reasons(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="fails"), FakeRecognizer("b", text="fails"))
    await scenario.upload()
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert scenario.terminal() == [("job.failed", JOB, 1)]
    assert "could not decode" in failed["error"]
    assert scenario.fleet.status("t", JOB).status == "failed"


async def test_what_each_recognizer_was_given_is_counted_once(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), FakeRecognizer("b", lose_answer=True))
    upload = await scenario.upload()
    await scenario.fleet.run()
    scenario.fleet.deliver_again(upload)
    await scenario.fleet.run()

    counted = sorted((row.job_id, row.provider, row.unit, row.quantity) for row in scenario.fleet.database.usage)
    assert counted == [(JOB, p, *used) for p in "ab" for used in (("audio_seconds", 0.5), ("requests", 1.0))]


async def test_a_transient_error_is_tried_three_times_more_with_growing_pauses(make_scenario):
    async def fails(_):
        raise Transient("busy")

    scenario = make_scenario(FakeRecognizer("a"))
    persist = next(stage for stage in scenario.fleet.stages if stage.name == "persist")
    scenario.fleet.stages = [replace(s, handle=fails) if s is persist else s for s in scenario.fleet.stages]
    await scenario.upload()
    await scenario.fleet.run()
    tries = [*scenario.fleet.log["reconciled"], *scenario.fleet.log["persist.due"][:3]]
    times = [record.timestamp_ms / 1000 for record in tries]

    assert [b - a for a, b in pairwise(times)] == [pytest.approx(wait, rel=0.26) for wait in (1.0, 2.0, 4.0)]
    assert scenario.terminal() == [("job.failed", JOB, 1)]
    assert len(scenario.fleet.log["reconciled.dlq"]) == 1


async def test_a_provider_that_is_away_is_asked_again_and_again_until_it_is_back(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", trouble=[NotAccepted("busy")] * 9), FakeRecognizer("b"))
    await scenario.upload()
    began = scenario.fleet.clock()
    await scenario.fleet.run()
    times = [r.timestamp_ms / 1000 - began.timestamp() for r in scenario.fleet.log["asr.requests.a"]]

    assert times[9] > 120
    assert scenario.recognizers["a"].charges.total() == 1
    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.fleet.events("reconciled")[0]["method"] == "calibrated"


async def test_a_provider_that_may_have_accepted_is_not_asked_again_before_that_would_show(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", trouble=[Transient("no answer")] * 3, settles_s=60))
    await scenario.upload()
    began = scenario.fleet.clock()
    await scenario.fleet.run()
    [done] = scenario.fleet.log["persisted"]

    assert done.timestamp_ms / 1000 - began.timestamp() == pytest.approx(3 * 60, abs=10)
    assert scenario.recognizers["a"].charges.total() == 1


async def test_a_provider_that_never_answers_is_given_up_at_the_deadline(make_scenario):
    scenario = make_scenario(
        FakeRecognizer("a", trouble=[Transient("busy")] * 999), FakeRecognizer("b"), deadline_s=600
    )
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.fleet.events("reconciled")[0]["method"] == "single"


async def test_with_two_slots_no_more_than_two_requests_are_ever_in_flight(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", polls=2), slots={"a": 2}, deadline_s=30)
    for number in range(6):
        await scenario.upload(f"j{number}")
    most = 0
    for _ in range(200):
        await scenario.limiters["a"].refresh()
        most = max(most, scenario.limiters["a"].traffic.under_way)
        await scenario.fleet.run(until=timedelta(seconds=0.5))
        scenario.fleet.clock.advance(1)

    assert most == 2
    # The last of them queue for longer than the deadline, which is put off for that.
    assert scenario.terminal() == [("persisted", f"j{n}", 1) for n in range(6)]
    assert scenario.recognizers["a"].charges.total() == 6


async def test_calls_keep_to_the_rate_that_all_workers_share(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), interval_s=2.0)
    for number in range(5):
        await scenario.upload(f"j{number}")
    began = scenario.fleet.clock()
    await scenario.fleet.run()
    ended = [r.timestamp_ms / 1000 - began.timestamp() for r in scenario.fleet.log["persisted"]]

    assert len(ended) == 5
    # A submission and a poll each: ten calls, two seconds apart.
    assert ended[-1] >= 17.5  # time stands still while an event that came early waits


async def test_when_a_provider_asks_for_a_pause_no_worker_calls_it(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", trouble=[RateLimited("slow down", retry_after=300.0)]), interval_s=0.1)
    await scenario.upload("first")
    await scenario.fleet.run(until=timedelta(seconds=1))
    await scenario.upload("second")
    began = scenario.fleet.clock()
    await scenario.fleet.run()

    ended = {r.key: r.timestamp_ms / 1000 - began.timestamp() for r in scenario.fleet.log["persisted"]}
    assert min(ended.values()) >= 298
    assert scenario.recognizers["a"].charges.total() == 2


async def test_a_provider_that_asks_for_a_pause_gets_it(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", trouble=[RateLimited("slow down", retry_after=40.0)]))
    await scenario.upload()
    began = scenario.fleet.clock()
    await scenario.fleet.run()
    second = scenario.fleet.log["asr.requests.a"][1]

    assert second.timestamp_ms / 1000 - began.timestamp() >= 40
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_submission_whose_answer_was_lost_is_found_and_not_paid_twice(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", lose_answer=True))
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.recognizers["a"].charges.total() == 1


async def test_a_provider_that_refuses_is_not_asked_again(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", trouble=[ProviderError("unsupported")]), FakeRecognizer("b"))
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.recognizers["a"].charges.total() == 0
    assert scenario.fleet.events("reconciled")[0]["method"] == "single"


async def test_a_recognizer_that_never_answers_is_given_up_at_the_deadline(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="never"), FakeRecognizer("b"), deadline_s=600)
    await scenario.upload()
    began = scenario.fleet.clock()
    await scenario.fleet.run()
    done = scenario.fleet.log["persisted"][0]

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert 600 <= done.timestamp_ms / 1000 - began.timestamp() < 605
    assert "deadline" in scenario.fleet.events("asr.results")[-1]["error"]


async def test_what_is_no_audio_fails_with_a_reason_and_is_kept(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(content=b"<html>not a recording</html>")
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert failed["stage"] == "intake"
    assert scenario.recognizers["a"].charges.total() == 0
    assert scenario.fleet.status("t", JOB).reason == failed["error"]
    assert len(scenario.fleet.log["audio.uploaded.dlq"]) == 1


@pytest.mark.parametrize("value", [b"\xff\xff", b"{", b"[]", b'{"tenant_id": "t"}', None])
async def test_poison_is_answered_and_does_not_stop_what_comes_after(make_scenario, value):
    scenario = make_scenario(FakeRecognizer("a"))
    scenario.fleet.publish("audio.uploaded", value, b"k")
    await scenario.upload()
    await scenario.fleet.run()

    [letter] = scenario.fleet.log["audio.uploaded.dlq"]
    assert letter.value == value
    assert letter.header("dlq-reason")
    assert scenario.terminal() == [("persisted", JOB, 1)]


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.wav",
        "https://127.0.0.1/a.wav",
        "https://[::1]/a.wav",
        "https://169.254.169.254/latest/meta-data",
        "http://example.com/a.wav",
        "memory:///other/in/x.wav",
        "memory:///t/../other/in/x.wav",
        "s3://somebody/else.wav",
    ],
)
async def test_what_may_not_be_read_is_refused(make_scenario, uri):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload("x", tenant="other")
    await scenario.upload(audio_uri=uri)
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert failed["job_id"] == JOB
    assert "audio_uri" in failed["error"] or "name" in failed["error"]


async def test_a_late_result_after_the_deadline_changes_nothing(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", polls=400), FakeRecognizer("b"), deadline_s=60)
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.fleet.events("reconciled")[0]["method"] == "single"


async def test_a_failed_job_can_be_run_again_and_pays_only_for_what_is_missing(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="fails"), FakeRecognizer("b", text="fails"))
    await scenario.upload()
    await scenario.fleet.run()
    scenario.recognizers["a"].text = "hello there world"
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await scenario.fleet.run()
    third = JobReprocess(tenant_id="t", job_id=JOB, run=3)
    scenario.fleet.publish("intake.due", third, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"2")))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 2), ("persisted", JOB, 3), ("job.failed", JOB, 1)]
    assert scenario.recognizers["a"].charges.total() == 2
    assert scenario.recognizers["b"].charges.total() == 3
    assert scenario.fleet.status("t", JOB).run == 3


async def test_a_replayed_upload_of_a_failed_job_begins_a_new_run(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="fails"))
    await scenario.upload()
    await scenario.fleet.run()
    scenario.recognizers["a"].text = "all is well"
    await scenario.upload(headers=(("ce_replay", b"1"),))
    await scenario.fleet.run()

    assert sorted(scenario.terminal()) == [("job.failed", JOB, 1), ("persisted", JOB, 2)]


async def test_what_a_failed_run_left_is_swept_and_the_original_kept(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="fails"))
    await scenario.upload()
    await scenario.fleet.run()
    names = [uri async for uri in scenario.store.list(f"t/{JOB}/")]

    assert any("original" in name for name in names)
    assert not any("raw_transcript" in name for name in names)


async def test_a_silent_recording_completes_and_says_so(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text=""), FakeRecognizer("b", text=""))
    await scenario.upload()
    await scenario.fleet.run()

    row = scenario.fleet.database.transcripts["t", JOB, 1]
    assert (row.text, row.words) == ("", 0)
    assert any("No speech" in note for note in row.reconciliation_notes)


async def test_notes_about_a_recording_are_in_its_transcript_in_every_run(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), FakeRecognizer("b"))
    await scenario.upload(content=(DATA / "antiphase.flac").read_bytes())
    await scenario.fleet.run()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await scenario.fleet.run()

    rows = [scenario.fleet.database.transcripts["t", JOB, run] for run in (1, 2)]
    assert ["oppose each other" in row.reconciliation_notes[0] for row in rows] == [True, True]
    assert "oppose each other" in scenario.fleet.status("t", JOB).steps["intake"].notes[0]
    optimized = orjson.loads(await scenario.store.get(rows[1].agent_optimized_uri))
    assert "oppose each other" in optimized["metadata"]["reconciliation_notes"][0]


async def test_an_upload_that_stands_in_our_storage_already_is_not_copied(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    blob = await scenario.store.put(f"t/{JOB}/original.wav", recording(), "audio/wav")
    data = {"tenant_id": "t", "job_id": JOB, "audio_uri": blob.uri, "filename": "x.wav"}
    scenario.fleet.publish("audio.uploaded", orjson.dumps(data))
    await scenario.fleet.run()

    assert scenario.fleet.database.files["t", JOB, 1, "original"].uri == blob.uri
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_trace_goes_through_the_whole_fleet(make_scenario):
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(headers=(("traceparent", trace),))
    await scenario.fleet.run()

    for topic in ("asr.requests.a", "asr.results", "reconciled", "persisted", "job.status"):
        for record in scenario.fleet.log[topic]:
            assert record.header("traceparent").startswith("00-0af7651916cd43dd8448eb211c80319c-")
