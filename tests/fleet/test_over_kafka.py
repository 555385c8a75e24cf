"""Recognizers outside of Concord that read Kafka: their requests, their answers, and whatever else comes there."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest

from agents.asr.outside.over_kafka import OverKafka
from schemas.errors import Unavailable
from tests.fleet.conftest import JOB, FakeRecognizer

NAME = "kafka-acme"

DATA = Path(__file__).parents[1] / "data"


def requests(scenario):
    return scenario.fleet.events("asr.requests.acme")


def answer(request, said="hello there world", **more):
    timed = [
        {"text": text, "start_ms": 400 * n, "end_ms": 400 * n + 350, "confidence": 0.9}
        for n, text in enumerate(said.split())
    ]
    same = {name: request[name] for name in ("tenant_id", "job_id", "run", "recognizer", "marker")}
    return same | {"status": "ok", "language": "en", "words": timed} | more


async def answers(scenario, *values, headers=(), minutes=1):
    for value in values:
        content = value if isinstance(value, bytes) or value is None else orjson.dumps(value)
        scenario.fleet.publish("asr.hypotheses", content, b"any", headers)
    await scenario.fleet.run(until=timedelta(minutes=minutes))


async def begin(scenario, **more):
    """Upload a recording, which is asked about; the request."""
    await scenario.upload(**more)
    await scenario.fleet.run(until=timedelta(minutes=1))
    return requests(scenario)[-1]


def step(scenario):
    return scenario.fleet.status("t", JOB).steps[f"transcribe.{NAME}"]


async def test_whom_a_report_is_mailed_to_is_on_no_topic_of_a_recognizer(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME), enrichments=("mail",))
    await begin(scenario, options={"mail_to": ["ann@example.com"]})

    asked = [topic for topic in scenario.fleet.log if topic.startswith("asr.requests.")]
    assert len(asked) == 3
    for topic in asked:
        assert all(b"ann@example.com" not in record.value for record in scenario.fleet.log[topic])


async def test_a_request_is_published_and_its_answer_ends_it(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="hello their world"), OverKafka(NAME))
    request = await begin(scenario, reference="call 4711", language="en-GB")
    assert request == {
        "tenant_id": "t",
        "job_id": JOB,
        "run": 1,
        "reference": "call 4711",
        "recognizer": NAME,
        "marker": f"concord-t~{JOB}~1~{NAME}",
        "audio_url": scenario.store.uri(f"t/{JOB}/original.wav"),
        "content_type": "audio/wav",
        "duration_ms": 500,
        "language": "en-GB",
        "diarize": False,
        "redact_pii": False,
        "answer_by": request["answer_by"],
        "attempt": 1,
        "attempts": 3,
    }
    assert scenario.terminal() == []
    assert step(scenario).state == "running"

    await answers(scenario, answer(request))
    assert scenario.terminal() == [("persisted", "call 4711", 1)]
    [result] = [event for event in scenario.fleet.events("asr.results") if event["provider"] == NAME]
    assert (result["status"], result["word_count"]) == ("ok", 3)
    assert step(scenario).state == "done"
    assert scenario.fleet.log["asr.hypotheses.dlq"] == []


async def test_answers_that_come_again_or_late_or_differ_change_nothing(make_scenario):
    scenario = make_scenario(OverKafka(NAME))
    request = await begin(scenario)
    other = answer(request, "something else entirely said")
    await answers(scenario, answer(request), answer(request), other, answer(request, status="failed", error="no"))
    await answers(scenario, other, minutes=600)

    assert scenario.terminal() == [("persisted", JOB, 1)]
    [result] = scenario.fleet.events("asr.results")
    stored = orjson.loads(await scenario.store.get(result["hypothesis_uri"]))
    assert (result["word_count"], [word["text"] for word in stored["words"]]) == (3, ["hello", "there", "world"])
    assert scenario.fleet.log["asr.hypotheses.dlq"] == []


async def test_a_failure_leaves_the_run_to_the_others(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME))
    request = await begin(scenario)
    await answers(scenario, answer(request, status="failed", error="no\x00 model", words=[]))

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert (step(scenario).state, step(scenario).error) == ("failed", "no model")


async def test_without_an_answer_it_is_asked_again_as_often_as_declared_and_the_run_goes_on_at_its_deadline(
    make_scenario,
):
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME, attempts=3), deadline_s=3600)
    began = scenario.fleet.clock()
    request = await begin(scenario)
    await scenario.fleet.run(until=timedelta(minutes=59))
    assert scenario.terminal() == []
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert [one["attempt"] for one in requests(scenario)] == [1, 2, 3]
    assert {one["marker"] for one in requests(scenario)} == {request["marker"]}
    [answer_by] = {one["answer_by"] for one in requests(scenario)}
    assert abs((datetime.fromisoformat(answer_by) - began).total_seconds() - 3600) < 2
    assert len({record.header("ce_id") for record in scenario.fleet.log["asr.requests.acme"]}) == 3
    assert step(scenario).error == "no answer before the deadline"
    await answers(scenario, answer(request))
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_no_run_is_told_to_wait_longer_than_it_does(make_scenario):
    """A tenant's own deadline counts."""
    from schemas.accounts.settings import AccountSettings
    from sinks.accounts import Accounts

    scenario = make_scenario(OverKafka(NAME))
    database = scenario.fleet.database
    await database.save_account_settings("t", AccountSettings(deadline_s=60), 0, "x")
    [transcriber] = [stage for stage in scenario.fleet.stages if stage.name == f"transcribe.{NAME}"]
    object.__setattr__(transcriber.handle.__self__, "accounts", Accounts(database, AccountSettings(), seconds=0))
    began = scenario.fleet.clock()
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=1))
    request = requests(scenario)[-1]
    assert (datetime.fromisoformat(request["answer_by"]) - began).total_seconds() < 62
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert "no answer before the deadline" in failed["error"]


async def test_a_url_ends_and_another_one_comes_with_the_next_request(make_scenario):
    scenario = make_scenario(OverKafka(NAME), deadline_s=10 * 3600)
    given = []

    async def presigned_url(uri, expires_s):
        given.append(expires_s)
        return f"https://bucket.example/{len(given)}"

    scenario.store.presigned_url = presigned_url
    request = await begin(scenario)
    await scenario.fleet.run(until=timedelta(hours=9))

    urls = [one["audio_url"] for one in requests(scenario)]
    assert urls == ["https://bucket.example/1", "https://bucket.example/2", "https://bucket.example/3"]
    assert datetime.fromisoformat(request["audio_expires_at"]) >= datetime.fromisoformat(request["answer_by"])
    assert given == [10 * 3600] * 3


REFUSED = {
    "no JSON": b"no json",
    "nothing": None,
    "an array": b"[]",
    "no marker": {"marker": None},
    "another marker": {"marker": "concord-u~x~1~kafka-acme"},
    "another recognizer": {"recognizer": "a"},
    "a time before the beginning": {"words": [{"text": "a", "start_ms": -1}]},
    "a confidence of seven": {"confidence": 7},
    "no status": {"status": "perhaps"},
    "a failure without a reason": {"status": "failed"},
    "no tenant": {"tenant_id": "../t"},
    "too many bytes": {"text": "word " * 200_000, "words": []},
    "both": {"transcript_uri": "https://a.example/b.json"},
}


@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_read_is_a_dead_letter_once_and_may_be_sent_again(make_scenario, wrong):
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME))
    request = await begin(scenario)
    value = answer(request, **wrong) if isinstance(wrong, dict) else wrong
    await answers(scenario, value)
    scenario.fleet.deliver_again(scenario.fleet.log["asr.hypotheses"][-1])
    await scenario.fleet.run(until=timedelta(minutes=1))

    [letter] = scenario.fleet.log["asr.hypotheses.dlq"]
    assert letter.header("dlq-stage") == "hypotheses"
    assert scenario.terminal() == []
    assert step(scenario).state == "running"
    await answers(scenario, answer(request))
    assert scenario.terminal() == [("persisted", JOB, 1)]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"tenant_id": "bolt"}, "job_id: the tenant has no such job"),
        ({"job_id": "unknown"}, "job_id: the tenant has no such job"),
        ({"run": 2}, "run: the job has 1 so far"),
        ({"recognizer": "kafka-other"}, "recognizer: it was not asked about this recording"),
    ],
    ids=str,
)
async def test_an_answer_about_nothing_changes_nothing_and_is_kept_with_the_reason(make_scenario, other, reason):
    scenario = make_scenario(OverKafka(NAME))
    request = await begin(scenario)
    value = answer(request, **other)
    await answers(scenario, value)

    [letter] = scenario.fleet.log["asr.hypotheses.dlq"]
    assert (letter.header("dlq-stage"), letter.header("dlq-reason")) == ("hypotheses", reason)
    assert orjson.loads(letter.value) == value
    assert scenario.terminal() == []
    assert step(scenario).state == "running"


async def test_an_answer_about_a_deleted_job_is_kept_nowhere(make_scenario):
    scenario = make_scenario(OverKafka(NAME))
    request = await begin(scenario)
    await scenario.fleet.database.begin_deletion(("t", JOB), "key_1")
    await answers(scenario, answer(request))

    assert scenario.fleet.log["asr.hypotheses.dlq"] == []


async def test_one_id_for_all_answers_loses_none(make_scenario):
    """Some producers use a constant as the id of all their events."""
    scenario = make_scenario(OverKafka(NAME))
    headers = (("ce_id", b"1"), ("ce_source", b"ours"))
    for number in range(3):
        await scenario.upload(None, reference=f"r{number}")
    await scenario.fleet.run(until=timedelta(minutes=1))
    await answers(scenario, *map(answer, requests(scenario)), headers=headers)

    assert len(scenario.terminal()) == 3


async def test_a_transcript_may_be_in_our_storage_below_the_tenants_name(make_scenario):
    scenario = make_scenario(OverKafka(NAME))
    request = await begin(scenario)
    content = orjson.dumps({"text": "from a file", "language": "en"})
    blob = await scenario.store.put("t/transcripts/1.json", content, "application/json")
    await answers(scenario, answer(request, words=[], transcript_uri=blob.uri))

    assert [event["word_count"] for event in scenario.fleet.events("persisted")] == [3]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("bolt/transcripts/1.json", b"{}", "transcript_uri: this part of the storage is not the tenant's"),
        ("t/transcripts/1.json", b"<html>", "transcript_uri: : Invalid JSON"),
        ("t/transcripts/1.json", b'{"words": [{"text": ""}]}', "transcript_uri: words.0.text"),
        ("t/transcripts/1.json", b" " * ((16 << 20) + 1), "more than 16777216 bytes"),
    ],
    ids=["of another tenant", "no JSON", "no word", "too long"],
)
async def test_a_transcript_that_cannot_be_read_fails_its_request(make_scenario, name, content, error):
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME))
    request = await begin(scenario)
    blob = await scenario.store.put(name, content, "application/json")
    await answers(scenario, answer(request, words=[], transcript_uri=blob.uri))

    assert error in step(scenario).error
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_private_host_is_not_asked_for_a_transcript(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME))
    request = await begin(scenario)
    await answers(scenario, answer(request, words=[], transcript_uri="https://127.0.0.1/x.json"))

    assert "transcript_uri: the host 127.0.0.1 is not a public one" in step(scenario).error


async def test_a_host_that_is_away_is_asked_again_and_then_the_request_fails(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME), allow_hosts=frozenset({"127.0.0.1"}))
    request = await begin(scenario)
    away = "https://127.0.0.1:9/x.json"
    await answers(scenario, answer(request, words=[], transcript_uri=away), minutes=5)

    assert len(scenario.fleet.events("hypotheses.due")) == 3
    assert step(scenario).error.startswith("its transcript cannot be fetched: ")
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_late_answer_to_an_earlier_run_counts_in_the_next_one(make_scenario):
    """The request was the same, as its marker says."""
    from schemas.events.job import JobReprocess

    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME), deadline_s=60)
    request = await begin(scenario)
    await scenario.fleet.run()
    assert scenario.terminal() == [("persisted", JOB, 1)]
    scenario.fleet.publish(
        "intake.due", JobReprocess(tenant_id="t", job_id=JOB, run=2), b"k", (("ce_type", b"job.reprocess"),)
    )
    await scenario.fleet.run(until=timedelta(seconds=10))
    assert [one["run"] for one in requests(scenario)] == [1, 1, 1, 2]
    assert requests(scenario)[-1]["marker"] == request["marker"]
    await answers(scenario, answer(request))

    assert scenario.terminal() == [("persisted", JOB, 1), ("persisted", JOB, 2)]


async def test_a_database_that_is_away_delays_the_answer(make_scenario):
    scenario = make_scenario(OverKafka(NAME))
    request = await begin(scenario)
    original, times = scenario.fleet.database.job, []

    async def away(*key):
        times.append(key)
        if len(times) < 3:
            raise Unavailable("away")
        return await original(*key)

    scenario.fleet.database.job = away
    await answers(scenario, answer(request))
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_slots_let_so_many_requests_out_at_once(make_scenario):
    scenario = make_scenario(OverKafka(NAME), slots={NAME: 2})
    for number in range(5):
        await scenario.upload(None, reference=f"r{number}")
    await scenario.fleet.run(until=timedelta(minutes=1))
    assert len(requests(scenario)) == 2
    await answers(scenario, answer(requests(scenario)[0]))
    await scenario.limiters[NAME].refresh()
    await scenario.fleet.run(until=timedelta(minutes=1))
    assert len(requests(scenario)) == 3


async def test_a_recording_that_others_would_decode_differently_is_offered_as_flac(make_scenario):
    scenario = make_scenario(OverKafka(NAME))
    request = await begin(scenario, content=(DATA / "antiphase.flac").read_bytes())

    assert scenario.fleet.status("t", JOB).steps["intake"].notes
    assert (request["audio_url"], request["content_type"]) == (
        scenario.store.uri(f"t/{JOB}/audio.decoded.flac"),
        "audio/flac",
    )
    assert (await scenario.store.get(request["audio_url"]))[:4] == b"fLaC"
