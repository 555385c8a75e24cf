"""What happens to a recording, told as stories: the happy way, providers that fail, strangers that err, events that
come twice.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient
from schemas.events.job import JobReprocess
from tests.fleet.conftest import J, Speaker, recording

DATA = Path(__file__).parents[1] / "data"


async def test_a_recording_becomes_a_transcript(story):
    told = story(Speaker("a"), Speaker("b", text="hello their world"))
    await told.upload()
    await told.fleet.run()

    [done] = told.fleet.events("persisted")
    optimized = orjson.loads(await told.store.get(done["agent_optimized_uri"]))
    assert told.terminal() == [("persisted", J, 1)]
    assert optimized["transcript"]["text"].split()[0] == "hello"
    assert done["word_count"] == 3
    assert told.fleet.status("t", J).status == "completed"
    assert told.fleet.database.transcripts["t", J, 1].method == "calibrated"


async def test_every_status_is_newer_than_the_one_before(story):
    told = story(Speaker("a", polls=3), Speaker("b"))
    await told.upload()
    await told.fleet.run()
    said = told.fleet.events("job.status")

    assert [s["version"] for s in said] == list(range(1, len(said) + 1))
    assert [s["status"] for s in said][-1] == "completed"
    assert said[-1]["steps"]["transcribe.a"]["state"] == "done"
    assert {0.25, 0.5, 0.75} <= {s["steps"].get("transcribe.a", {}).get("progress") for s in said}


async def test_the_same_upload_twice_is_one_job(story):
    told = story(Speaker("a"))
    record = await told.upload()
    await told.fleet.run()
    told.fleet.deliver_again(record)
    await told.upload()
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 1)]
    assert set(told.speakers["a"].charges.values()) == {1}


async def test_the_same_cloudevent_without_a_job_id_is_one_job(story):
    told = story(Speaker("a"))
    for _ in range(2):
        await told.upload(None, headers=(("ce_id", b"7"), ("ce_source", b"/crm")))
    await told.fleet.run()

    assert len(told.terminal()) == 1


async def test_every_event_delivered_twice_changes_nothing(story):
    told = story(Speaker("a", polls=1), Speaker("b", text="hello their world"))
    await told.upload()
    await told.fleet.run()
    before = {topic: len(records) for topic, records in told.fleet.log.items()}
    for records in list(told.fleet.log.values()):
        for record in list(records):
            told.fleet.deliver_again(record)
    await told.fleet.run()

    assert {topic: len(records) for topic, records in told.fleet.log.items()} == before
    assert all(set(s.charges.values()) == {1} for s in told.speakers.values())


async def test_one_recognizer_that_fails_leaves_the_others_words(story):
    told = story(Speaker("a", text="fails"), Speaker("b"))
    await told.upload()
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 1)]
    assert told.fleet.events("reconciled")[0]["method"] == "single"
    notes = told.fleet.database.transcripts["t", J, 1].reconciliation_notes
    assert any("one recognizer" in note for note in notes)
    assert len(told.fleet.log["asr.requests.a.dlq"]) == 1


async def test_when_all_recognizers_fail_the_job_fails_once_with_their_reasons(story):
    told = story(Speaker("a", text="fails"), Speaker("b", text="fails"))
    await told.upload()
    await told.fleet.run()

    [failed] = told.fleet.events("job.failed")
    assert told.terminal() == [("job.failed", J, 1)]
    assert "could not decode" in failed["error"]
    assert told.fleet.status("t", J).status == "failed"


async def test_what_each_recognizer_was_given_is_counted_once(story):
    told = story(Speaker("a"), Speaker("b", lose_answer=True))
    upload = await told.upload()
    await told.fleet.run()
    told.fleet.deliver_again(upload)
    await told.fleet.run()

    counted = sorted((row.job_id, row.provider, row.unit, row.quantity) for row in told.fleet.database.usage)
    assert counted == [(J, p, *used) for p in "ab" for used in (("audio_seconds", 0.5), ("requests", 1.0))]


async def test_a_transient_error_is_tried_three_times_more_with_growing_pauses(story):
    async def fails(_):
        raise Transient("busy")

    told = story(Speaker("a"))
    persist = next(stage for stage in told.fleet.stages if stage.name == "persist")
    told.fleet.stages = [replace(s, handle=fails) if s is persist else s for s in told.fleet.stages]
    await told.upload()
    await told.fleet.run()
    tries = [*told.fleet.log["reconciled"], *told.fleet.log["persist.due"][:3]]
    times = [record.timestamp_ms / 1000 for record in tries]

    assert [b - a for a, b in pairwise(times)] == [pytest.approx(wait, rel=0.26) for wait in (1.0, 2.0, 4.0)]
    assert told.terminal() == [("job.failed", J, 1)]
    assert len(told.fleet.log["reconciled.dlq"]) == 1


async def test_a_provider_that_is_away_is_asked_again_and_again_until_it_is_back(story):
    told = story(Speaker("a", trouble=[NotAccepted("busy")] * 9), Speaker("b"))
    await told.upload()
    began = told.fleet.clock()
    await told.fleet.run()
    times = [r.timestamp_ms / 1000 - began.timestamp() for r in told.fleet.log["asr.requests.a"]]

    assert times[9] > 120
    assert told.speakers["a"].charges.total() == 1
    assert told.terminal() == [("persisted", J, 1)]
    assert told.fleet.events("reconciled")[0]["method"] == "calibrated"


async def test_a_provider_that_may_have_accepted_is_not_asked_again_before_that_would_show(story):
    told = story(Speaker("a", trouble=[Transient("no answer")] * 3, settles_s=60))
    await told.upload()
    began = told.fleet.clock()
    await told.fleet.run()
    [done] = told.fleet.log["persisted"]

    assert done.timestamp_ms / 1000 - began.timestamp() == pytest.approx(3 * 60, abs=10)
    assert told.speakers["a"].charges.total() == 1


async def test_a_provider_that_never_answers_is_given_up_at_the_deadline(story):
    told = story(Speaker("a", trouble=[Transient("busy")] * 999), Speaker("b"), deadline_s=600)
    await told.upload()
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 1)]
    assert told.fleet.events("reconciled")[0]["method"] == "single"


async def test_with_two_places_no_more_than_two_requests_are_ever_under_way(story):
    told = story(Speaker("a", polls=2), slots={"a": 2}, deadline_s=30)
    for number in range(6):
        await told.upload(f"j{number}")
    most = 0
    for _ in range(200):
        await told.limiters["a"].refresh()
        most = max(most, told.limiters["a"].traffic.under_way)
        await told.fleet.run(until=timedelta(seconds=0.5))
        told.fleet.clock.advance(1)

    assert most == 2
    # The last of them queue for longer than the deadline, which is put off for that.
    assert told.terminal() == [("persisted", f"j{n}", 1) for n in range(6)]
    assert told.speakers["a"].charges.total() == 6


async def test_calls_keep_to_the_rate_that_all_workers_share(story):
    told = story(Speaker("a"), interval_s=2.0)
    for number in range(5):
        await told.upload(f"j{number}")
    began = told.fleet.clock()
    await told.fleet.run()
    ended = [r.timestamp_ms / 1000 - began.timestamp() for r in told.fleet.log["persisted"]]

    assert len(ended) == 5
    # A submission and a poll each: ten calls, two seconds apart.
    assert ended[-1] >= 17.5  # time stands still while an event that came early waits


async def test_when_a_provider_asks_for_a_pause_nobody_else_calls_it(story):
    told = story(Speaker("a", trouble=[RateLimited("slow down", retry_after=300.0)]), interval_s=0.5)
    await told.upload("first")
    await told.fleet.run(until=timedelta(seconds=1))
    await told.upload("second")
    began = told.fleet.clock()
    await told.fleet.run()

    ended = {r.key: r.timestamp_ms / 1000 - began.timestamp() for r in told.fleet.log["persisted"]}
    assert min(ended.values()) >= 298
    assert told.speakers["a"].charges.total() == 2


async def test_a_provider_that_asks_for_a_pause_gets_it(story):
    told = story(Speaker("a", trouble=[RateLimited("slow down", retry_after=40.0)]))
    await told.upload()
    began = told.fleet.clock()
    await told.fleet.run()
    second = told.fleet.log["asr.requests.a"][1]

    assert second.timestamp_ms / 1000 - began.timestamp() >= 40
    assert told.terminal() == [("persisted", J, 1)]


async def test_a_submission_whose_answer_was_lost_is_found_and_not_paid_twice(story):
    told = story(Speaker("a", lose_answer=True))
    await told.upload()
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 1)]
    assert told.speakers["a"].charges.total() == 1


async def test_a_provider_that_refuses_is_not_asked_again(story):
    told = story(Speaker("a", trouble=[ProviderError("unsupported")]), Speaker("b"))
    await told.upload()
    await told.fleet.run()

    assert told.speakers["a"].charges.total() == 0
    assert told.fleet.events("reconciled")[0]["method"] == "single"


async def test_a_recognizer_that_never_answers_is_given_up_at_the_deadline(story):
    told = story(Speaker("a", text="never"), Speaker("b"), deadline_s=600)
    await told.upload()
    began = told.fleet.clock()
    await told.fleet.run()
    done = told.fleet.log["persisted"][0]

    assert told.terminal() == [("persisted", J, 1)]
    assert 600 <= done.timestamp_ms / 1000 - began.timestamp() < 605
    assert "deadline" in told.fleet.events("asr.results")[-1]["error"]


async def test_what_is_no_audio_fails_with_a_reason_and_is_kept(story):
    told = story(Speaker("a"))
    await told.upload(content=b"<html>not a recording</html>")
    await told.fleet.run()

    [failed] = told.fleet.events("job.failed")
    assert failed["stage"] == "intake"
    assert told.speakers["a"].charges.total() == 0
    assert told.fleet.status("t", J).reason == failed["error"]
    assert len(told.fleet.log["audio.uploaded.dlq"]) == 1


@pytest.mark.parametrize("value", [b"\xff\xff", b"{", b"[]", b'{"tenant_id": "t"}', None])
async def test_poison_is_answered_and_does_not_stop_what_comes_after(story, value):
    told = story(Speaker("a"))
    told.fleet.publish("audio.uploaded", value, b"k")
    await told.upload()
    await told.fleet.run()

    [letter] = told.fleet.log["audio.uploaded.dlq"]
    assert letter.value == value
    assert letter.header("dlq-reason")
    assert told.terminal() == [("persisted", J, 1)]


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
async def test_what_may_not_be_read_is_refused(story, uri):
    told = story(Speaker("a"))
    await told.upload("x", tenant="other")
    await told.upload(audio_uri=uri)
    await told.fleet.run()

    [failed] = told.fleet.events("job.failed")
    assert failed["job_id"] == J
    assert "audio_uri" in failed["error"] or "name" in failed["error"]


async def test_a_late_result_after_the_deadline_changes_nothing(story):
    told = story(Speaker("a", polls=400), Speaker("b"), deadline_s=60)
    await told.upload()
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 1)]
    assert told.fleet.events("reconciled")[0]["method"] == "single"


async def test_a_failed_job_can_be_run_again_and_pays_only_for_what_is_missing(story):
    told = story(Speaker("a", text="fails"), Speaker("b", text="fails"))
    await told.upload()
    await told.fleet.run()
    told.speakers["a"].text = "hello there world"
    again = JobReprocess(tenant_id="t", job_id=J, run=2)
    told.fleet.publish("intake.due", again, J.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await told.fleet.run()
    third = JobReprocess(tenant_id="t", job_id=J, run=3)
    told.fleet.publish("intake.due", third, J.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"2")))
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 2), ("persisted", J, 3), ("job.failed", J, 1)]
    assert told.speakers["a"].charges.total() == 2
    assert told.speakers["b"].charges.total() == 3
    assert told.fleet.status("t", J).run == 3


async def test_a_replayed_upload_of_a_failed_job_begins_a_new_run(story):
    told = story(Speaker("a", text="fails"))
    await told.upload()
    await told.fleet.run()
    told.speakers["a"].text = "all is well"
    await told.upload(headers=(("ce_replay", b"1"),))
    await told.fleet.run()

    assert sorted(told.terminal()) == [("job.failed", J, 1), ("persisted", J, 2)]


async def test_what_a_failed_run_left_is_swept_and_the_original_kept(story):
    told = story(Speaker("a", text="fails"))
    await told.upload()
    await told.fleet.run()
    names = [uri async for uri in told.store.list(f"t/{J}/")]

    assert any("original" in name for name in names)
    assert not any("raw_transcript" in name for name in names)


async def test_a_silent_recording_completes_and_says_so(story):
    told = story(Speaker("a", text=""), Speaker("b", text=""))
    await told.upload()
    await told.fleet.run()

    row = told.fleet.database.transcripts["t", J, 1]
    assert (row.text, row.words) == ("", 0)
    assert any("No speech" in note for note in row.reconciliation_notes)


async def test_what_is_odd_about_a_recording_is_told_with_its_transcript_in_every_run(story):
    told = story(Speaker("a"), Speaker("b"))
    await told.upload(content=(DATA / "antiphase.flac").read_bytes())
    await told.fleet.run()
    again = JobReprocess(tenant_id="t", job_id=J, run=2)
    told.fleet.publish("intake.due", again, J.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await told.fleet.run()

    rows = [told.fleet.database.transcripts["t", J, run] for run in (1, 2)]
    assert ["oppose each other" in row.reconciliation_notes[0] for row in rows] == [True, True]
    assert "oppose each other" in told.fleet.status("t", J).steps["intake"].notes[0]
    optimized = orjson.loads(await told.store.get(rows[1].agent_optimized_uri))
    assert "oppose each other" in optimized["metadata"]["reconciliation_notes"][0]


async def test_an_upload_that_stands_in_our_storage_already_is_not_copied(story):
    told = story(Speaker("a"))
    blob = await told.store.put(f"t/{J}/original.wav", recording(), "audio/wav")
    data = {"tenant_id": "t", "job_id": J, "audio_uri": blob.uri, "filename": "x.wav"}
    told.fleet.publish("audio.uploaded", orjson.dumps(data))
    await told.fleet.run()

    assert told.fleet.database.files["t", J, 1, "original"].uri == blob.uri
    assert told.terminal() == [("persisted", J, 1)]


async def test_a_trace_goes_through_the_whole_fleet(story):
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    told = story(Speaker("a"))
    await told.upload(headers=(("traceparent", trace),))
    await told.fleet.run()

    for topic in ("asr.requests.a", "asr.results", "reconciled", "persisted", "job.status"):
        for record in told.fleet.log[topic]:
            assert record.header("traceparent").startswith("00-0af7651916cd43dd8448eb211c80319c-")
