"""A recognizer of one language waits until the recording's language is known, and is left out of another one."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agents.asr.protocols import ANY, Languages
from agents.stages.uploads.jobs import reused_request
from schemas.errors import ProviderError
from schemas.events.job import JobReprocess
from schemas.jobs.rows import ProviderRequest
from tests.fleet.conftest import JOB, FakeRecognizer

GERMAN = "guten Tag mein Name ist Martin Schneider ich rufe an weil meine Rechnung nicht stimmt"
ENGLISH = "hello my name is Martin and I am calling because of the bill that you sent me last week"
NOTE = "tiny.en is left out: it hears en only; the recording is in de."


@pytest.fixture
def scenario_of(make_scenario):
    """A fleet of an English-only recognizer and these."""

    def build(*others, deadline_s=3600.0, slots=None):
        tiny = FakeRecognizer("tiny.en", text=ENGLISH)
        languages = {"tiny.en": Languages(frozenset({"en"}))} | {other.name: ANY for other in others}
        return make_scenario(tiny, *others, languages=languages, deadline_s=deadline_s, slots=slots)

    return build


def row_of(scenario, run=1):
    return scenario.fleet.database._of_run("t", JOB, run)["tiny.en"]


def charged(scenario):
    return scenario.recognizers["tiny.en"].charges.total()


def seconds_of(scenario, topic, began):
    """When the events of a topic were published, in seconds."""
    return [record.timestamp_ms / 1000 - began.timestamp() for record in scenario.fleet.log[topic]]


async def test_an_english_only_recognizer_is_left_out_of_a_recording_that_another_finds_german(scenario_of):
    scenario = scenario_of(FakeRecognizer("base", text=GERMAN, language="de", polls=5))
    await scenario.upload()
    await scenario.fleet.run()

    assert charged(scenario) == 0
    assert scenario.terminal() == [("persisted", JOB, 1)]
    found = scenario.fleet.database.transcripts["t", JOB, 1]
    assert (found.text, found.language, found.method) == (GERMAN, "de", "single")
    assert found.reconciliation_notes[0] == NOTE
    row = row_of(scenario)
    assert (row.state, row.hypothesis_uri, f"tiny.en is {row.error}.") == ("done", None, NOTE)
    step = scenario.fleet.status("t", JOB).steps["transcribe.tiny.en"]
    assert (step.state, step.error, step.notes) == ("done", None, (row.error,))
    results = {event["provider"]: event["status"] for event in scenario.fleet.events("asr.results")}
    assert results == {"base": "ok", "tiny.en": "failed"}


async def test_in_an_english_recording_it_starts_as_soon_as_the_other_has_answered(scenario_of):
    scenario = scenario_of(FakeRecognizer("base", text=ENGLISH, polls=3))  # of 5 s each
    began = scenario.fleet.clock()
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=10))
    waiting = scenario.fleet.status("t", JOB).steps["transcribe.tiny.en"]
    await scenario.fleet.run()

    assert (waiting.state, charged(scenario)) == ("waiting", 1)
    assert "waits until another recognizer has told" in waiting.notes[0]
    found = scenario.fleet.database.transcripts["t", JOB, 1]
    assert (found.method, found.reconciliation_notes) == ("calibrated", [])
    assert seconds_of(scenario, "persisted", began)[0] < 25  # and not after the minute to its next look


async def test_an_answer_that_comes_between_a_look_and_its_commit_is_seen_soon(scenario_of, monkeypatch):
    scenario = scenario_of(FakeRecognizer("base", text=ENGLISH, polls=3))  # of 5 s each

    async def found_no_look(*_):
        return False

    monkeypatch.setattr(scenario.fleet.database, "expedite_job", found_no_look)
    began = scenario.fleet.clock()
    await scenario.upload()
    await scenario.fleet.run()

    assert seconds_of(scenario, "persisted", began)[0] < 30


@pytest.mark.parametrize(("asked", "charges"), [("de", 0), ("de-AT", 0), ("en", 1), ("en-GB", 1)])
async def test_the_language_that_is_asked_for_decides_at_once(scenario_of, asked, charges):
    scenario = scenario_of(FakeRecognizer("base", text="never"))
    await scenario.upload(language=asked)
    await scenario.fleet.run(until=timedelta(seconds=30))

    assert charged(scenario) == charges
    assert row_of(scenario).state == "done"


async def test_without_another_recognizer_that_can_tell_it_starts_at_once(scenario_of):
    scenario = scenario_of()
    await scenario.upload()
    await scenario.fleet.run()

    assert charged(scenario) == 1
    assert scenario.terminal() == [("persisted", JOB, 1)]


@pytest.mark.parametrize(
    "base",
    [
        FakeRecognizer("base", text="fails"),
        FakeRecognizer("base", text="", language="de"),
        FakeRecognizer("base", text=GERMAN, language=None),
        FakeRecognizer("base", text=ENGLISH, language="cy"),  # whose words are English, whatever it takes them for
    ],
    ids=["failed", "no words", "no language", "English words"],
)
async def test_it_starts_when_the_others_cannot_tell(scenario_of, base):
    scenario = scenario_of(base)
    began = scenario.fleet.clock()
    await scenario.upload()
    await scenario.fleet.run()

    assert charged(scenario) == 1
    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert "tiny.en" in scenario.fleet.database.transcripts["t", JOB, 1].quality["recognizers"]
    assert seconds_of(scenario, "persisted", began)[0] < 25


async def test_one_of_several_that_hears_english_is_enough(scenario_of):
    scenario = scenario_of(FakeRecognizer("base", text=ENGLISH), FakeRecognizer("slow", text=GERMAN, polls=40))
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=30))

    assert charged(scenario) == 1


async def test_a_run_whose_other_recognizer_never_answers_has_its_words(scenario_of):
    scenario = scenario_of(FakeRecognizer("base", text="never"), deadline_s=600)
    began = scenario.fleet.clock()
    await scenario.upload()
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.fleet.database.transcripts["t", JOB, 1].text == ENGLISH
    assert 300 <= seconds_of(scenario, "asr.results", began)[0] < 310


async def test_while_the_others_are_queued_it_waits_for_longer_than_half_of_the_deadline(scenario_of):
    scenario = scenario_of(FakeRecognizer("base", text=GERMAN, language="de"), deadline_s=120, slots={"base": 0})
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(minutes=20))
    before = charged(scenario)
    scenario.limiters["base"].slots = 1
    await scenario.limiters["base"].refresh()
    await scenario.fleet.run()

    assert (before, charged(scenario)) == (0, 0)
    assert scenario.fleet.database.transcripts["t", JOB, 1].reconciliation_notes[0] == NOTE


async def test_nobody_for_the_language_asked_for_fails_with_the_reason(scenario_of):
    scenario = scenario_of()
    await scenario.upload(language="de")
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert failed["code"] == ProviderError.code
    assert "tiny.en: left out: it hears en only; the recording is in de" in failed["error"]


async def test_the_next_run_decides_again(scenario_of):
    scenario = scenario_of(FakeRecognizer("base", text=GERMAN, language="de"))
    await scenario.upload()
    await scenario.fleet.run()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1), ("persisted", JOB, 2)]
    assert (charged(scenario), scenario.recognizers["base"].charges.total()) == (0, 1)
    assert scenario.fleet.database.transcripts["t", JOB, 2].reconciliation_notes[0] == NOTE
    assert row_of(scenario, 2).state == "done"


async def test_events_that_are_delivered_twice_change_nothing(scenario_of):
    scenario = scenario_of(FakeRecognizer("base", text=GERMAN, language="de", polls=3))
    record = await scenario.upload()
    await scenario.fleet.run()
    for topic in ("asr.requests.tiny.en", "asr.requests.base", "asr.results"):
        for again in list(scenario.fleet.log[topic]):
            scenario.fleet.deliver_again(again)
    scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert charged(scenario) == 0


async def test_a_request_that_has_begun_is_not_stopped(scenario_of):
    """It began after half of the deadline; what is computed or paid for is waited for."""
    scenario = scenario_of(FakeRecognizer("base", text=GERMAN, language="de", polls=2))
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=1))
    database = scenario.fleet.database
    database._write(replace(row_of(scenario), admitted_at=database.clock()))
    await scenario.fleet.run()

    assert charged(scenario) == 1
    assert row_of(scenario).hypothesis_uri


def test_what_was_left_out_has_no_answer_that_the_next_run_could_take_over():
    request = ProviderRequest(tenant_id="t", job_id=JOB, run=2, provider="tiny.en", marker="m")
    left_out = replace(request, run=1, state="done", error="left out: it hears en only; the recording is in de")
    answered = replace(request, run=1, state="done", hypothesis_uri="file:///h.json")

    assert reused_request(request, left_out) == request
    assert reused_request(request, answered).state == "done"
