"""Events that cannot be handled are refused in a way that cannot fail itself: a dead letter, and one terminal event."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import orjson
import pytest

from schemas.errors import ProviderError
from schemas.events.job import JobReprocess, Reconciled
from tests.fleet.conftest import JOB, FakeRecognizer, recording


@pytest.mark.parametrize("content_type", ["a\x00b", "audio/wav\x1b[2J", "\x00" * 255])
async def test_a_refused_file_with_an_odd_content_type_ends_its_job(make_scenario, content_type):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(content=b"<html>not a recording</html>", content_type=content_type)
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert failed["code"] == "refused_media"
    assert failed["failed_at"]
    assert len(scenario.fleet.log["audio.uploaded.dlq"]) == 1
    assert (await scenario.fleet.database.job("t", JOB)).status == "failed"


async def test_an_odd_content_type_does_not_keep_a_recording_from_being_transcribed(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(content_type="audio/\x00wav")
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_what_no_store_takes_is_kept_as_text_and_the_call_transcribed(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="hi\x00 \x00 there\ud83d"), FakeRecognizer("b", text="hi there"))
    blob = await scenario.store.put("t/in/j.wav", recording(), "audio/wav")
    value = b'{"tenant_id":"t","job_id":"j","audio_uri":"%s","filename":"a.wav","metadata":%s}'
    metadata = b'{"iccid":89490200001234567890,"note":"a\\u0000b","odd\\u0000":1e400,"cut":"\\ud83d"}'
    scenario.fleet.publish("audio.uploaded", value % (blob.uri.encode(), metadata))
    await scenario.fleet.run()

    [done] = scenario.fleet.events("persisted")
    optimized = orjson.loads(await scenario.store.get(done["agent_optimized_uri"]))
    assert optimized["metadata"]["custom"] == {
        "iccid": "89490200001234567890",
        "note": "a\ufffdb",
        "odd\ufffd": "Infinity",
        "cut": "\ufffd",
    }
    assert optimized["transcript"]["text"].startswith("hi there")
    assert "\x00" not in optimized["transcript"]["text"]


async def test_a_reconciled_word_with_a_nul_ends_with_the_word(make_scenario):
    """As an earlier version, or another producer, may have stored it."""
    scenario = make_scenario(FakeRecognizer("a", text="hi"))
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(0))
    raw = b'{"decisions":[{"chosen":{"text":"hi\\u0000","providers":["a"],"probability":1}}],"method":"single",'
    raw += b'"quality":{"confidence":1,"agreement":1,"disputed_spans_per_1000_words":0,"expected_word_errors":0},'
    blob = await scenario.store.put("t/j/raw.json", raw + b'"providers":["a"]}', "application/json")
    reconciled = Reconciled(tenant_id="t", job_id=JOB, raw_uri=blob.uri, method="single")
    ours = ("ce_id", str(uuid4()).encode()), ("ce_source", b"/concord")
    scenario.fleet.publish("reconciled", reconciled, JOB.encode(), ours)
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.fleet.database.transcripts["t", JOB, 1].text == "hi"


@pytest.mark.parametrize("error", ["\x00 said the host", "\ud83d" * 3000], ids=["NUL", "halves of characters"])
async def test_every_refusal_of_a_provider_is_in_the_reason(make_scenario, error):
    scenario = make_scenario(
        FakeRecognizer("a", trouble=[ProviderError(error)]), FakeRecognizer("b", trouble=[ProviderError(error)])
    )
    await scenario.upload()
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert failed["code"] == "provider_refused"
    assert len(failed["error"]) <= 2000


UPLOAD = {"tenant_id": "t", "job_id": JOB, "audio_uri": "https://a.example/b.wav", "filename": "call.wav"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"priority": 12}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"language": "german"}, "BCP 47"),
        ({"audio_uri": None}, "audio_uri"),
        ({"audio_uri": "/home/me/a.wav"}, "audio_uri"),
        ({"audio_uri": "s3://a/\x00b"}, "audio_uri"),
        ({"filename": None}, "filename"),
        ({"filename": 7}, "filename"),
        ({"options": {"diarize": "perhaps"}}, "diarize"),
        ({"options": ["diarize"]}, "options"),
        ({"metadata": {str(n): n for n in range(65)}}, "metadata"),
        ({"metadata": "a note"}, "metadata"),
        ({"metadata": {"a": [0] * 30_000}}, "values"),
        ({"content_type": "x" * 300}, "content_type"),
        ({"reference": "a\nb"}, "reference"),
    ],
)
async def test_an_upload_that_is_refused_for_a_field_ends_in_job_failed_once(make_scenario, wrong, says):
    scenario = make_scenario(FakeRecognizer("a"))
    record = scenario.fleet.publish("audio.uploaded", orjson.dumps(UPLOAD | wrong))
    await scenario.fleet.run()
    scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    job = await scenario.fleet.database.job("t", JOB)
    assert (failed["code"], failed["stage"], failed["job_id"]) == ("malformed_event", "intake", JOB)
    assert says in failed["error"]
    assert (job.status, job.code, job.reason) == ("failed", "malformed_event", failed["error"])
    assert scenario.fleet.status("t", JOB).code == "malformed_event"
    [letter] = scenario.fleet.log["audio.uploaded.dlq"]
    assert says in letter.header("dlq-reason")


@pytest.mark.parametrize(
    "value",
    [
        b'{"tenant_id":"t","job_id":"%s","audio_uri":"s3://a/b","filename":"\\ud83d","priority":1e999}' % JOB.encode(),
        b'{"tenant_id":"t","job_id":"%s","metadata":%s}' % (JOB.encode(), b"[" * 300 + b"]" * 300),
        b'{"tenant_id":"t","job_id":"%s","priority":%s}' % (JOB.encode(), b"9" * 4000),
    ],
)
async def test_json_that_other_parsers_read_ends_in_job_failed_too(make_scenario, value):
    scenario = make_scenario(FakeRecognizer("a"))
    scenario.fleet.publish("audio.uploaded", value)
    await scenario.fleet.run()

    assert scenario.terminal() == [("job.failed", JOB, 1)]


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b'{"tenant_id": "t"}',
        b'{"tenant_id": "t", "job_id": 7}',
        b'{"tenant_id": "../t", "job_id": "j"}',
        b'{"tenant_id": "t", "job_id": "00000000-0000-0000-0000-000000000000"}',
        b'{"job_id": "j"}',
        b'[{"tenant_id": "t", "job_id": "j"}]',
        b'{"tenant_id": ["t"], "job_id": "j"}',
    ],
)
async def test_where_no_job_can_be_read_there_is_a_dead_letter_and_no_job(make_scenario, value):
    scenario = make_scenario(FakeRecognizer("a"))
    scenario.fleet.publish("audio.uploaded", value, b"t/j")
    await scenario.fleet.run()

    assert scenario.terminal() == []
    assert len(scenario.fleet.log["audio.uploaded.dlq"]) == 1


async def test_a_refused_upload_is_named_by_its_reference_or_by_its_event_too(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    scenario.fleet.publish("audio.uploaded", b'{"tenant_id":"t","job_id":"call 1","priority":12}')
    scenario.fleet.publish("audio.uploaded", b'{"tenant_id":"t","reference":"call 2","priority":12}')
    scenario.fleet.publish("audio.uploaded", b'{"tenant_id":"t","priority":12}', headers=(("ce_id", b"3"),))
    await scenario.fleet.run()

    failed = scenario.fleet.events("job.failed")
    assert [event.get("reference") for event in failed] == ["call 1", "call 2", None]
    assert len({event["job_id"] for event in failed}) == 3


async def test_a_repeat_that_is_refused_changes_nothing_of_its_job(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload()
    await scenario.fleet.run()
    before = await scenario.fleet.database.job("t", JOB)
    scenario.fleet.publish("audio.uploaded", orjson.dumps(UPLOAD | {"priority": 12}))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert await scenario.fleet.database.job("t", JOB) == before
    assert len(scenario.fleet.log["audio.uploaded.dlq"]) == 1


async def test_a_corrected_upload_of_the_same_job_is_its_next_run(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    scenario.fleet.publish("audio.uploaded", orjson.dumps({"tenant_id": "t", "job_id": JOB, "priority": 12}))
    await scenario.fleet.run()
    scenario.fleet.publish("audio.uploaded", orjson.dumps({"tenant_id": "t", "job_id": JOB, "priority": 13}))
    await scenario.fleet.run()
    for _ in range(2):
        await scenario.upload(language="de", metadata={"a": 1}, filename="b.wav")
        await scenario.fleet.run()

    job = await scenario.fleet.database.job("t", JOB)
    assert sorted(scenario.terminal()) == [("job.failed", JOB, 1), ("persisted", JOB, 2)]
    assert (job.language, job.filename, job.code) == ("de", "b.wav", None)
    assert await scenario.fleet.database.metadata("t", JOB) == {"a": 1}
    assert scenario.fleet.status("t", JOB).code is None


async def test_a_corrected_upload_that_asks_for_what_cannot_be_done_fails_as_the_next_run(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    scenario.fleet.publish("audio.uploaded", orjson.dumps({"tenant_id": "t", "job_id": JOB, "priority": 12}))
    await scenario.fleet.run()
    await scenario.upload(options={"diarize": True})
    await scenario.fleet.run()

    assert scenario.terminal() == [("job.failed", JOB, 1), ("job.failed", JOB, 2)]
    assert scenario.fleet.status("t", JOB).code == "unsupported_option"
    assert len(scenario.fleet.log["audio.uploaded.dlq"]) == 2


async def test_a_job_whose_upload_could_not_be_read_cannot_be_run_again(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    scenario.fleet.publish("audio.uploaded", orjson.dumps({"tenant_id": "t", "job_id": JOB}))
    await scenario.fleet.run()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await scenario.fleet.run()

    assert scenario.terminal() == [("job.failed", JOB, 1)]
    assert "send it again" in scenario.fleet.log["intake.due.dlq"][0].header("dlq-reason")


@pytest.mark.parametrize("language", ["de_DE", "en-us", "", " de ", None, "auto", "zh-Hant-TW"])
async def test_languages_are_taken_as_they_are_commonly_written(make_scenario, language):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(language=language)
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    expected = {"de_DE": "de-DE", "": "auto", " de ": "de", None: "auto"}.get(language, language)
    assert (await scenario.fleet.database.job("t", JOB)).language == expected


@pytest.mark.parametrize("stage", ["asr.requests.a", "asr.results", "reconciled"])
async def test_an_event_of_ours_that_cannot_be_read_ends_its_run(make_scenario, stage):
    """As a version that is older or newer may send it."""
    scenario = make_scenario(FakeRecognizer("a", text="never"), deadline_s=600)
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=1))
    broken = b'{"tenant_id":"t","job_id":"%s","run":1,"news":1}' % JOB.encode()
    scenario.fleet.publish(stage, broken, JOB.encode(), (("ce_type", b"asr.request"),) if "requests" in stage else ())
    await scenario.fleet.run()

    assert scenario.terminal() == [("job.failed", JOB, 1)]
