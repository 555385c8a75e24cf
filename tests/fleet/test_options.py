"""Options of uploads are applied, or refused with a remedy; none is ignored."""

import pytest

from agents.asr.protocols import ANY
from agents.fleet.environment import from_env
from agents.fleet.recognizers import abilities, languages
from schemas.accounts.settings import AccountSettings
from schemas.events.audio import AudioUploaded
from tests.fleet.conftest import JOB, FakeRecognizer

ALL = frozenset({"diarize", "redact_pii"})


async def ended(scenario, **upload):
    """The job's only terminal event: its topic and data."""
    await scenario.upload(**upload)
    await scenario.fleet.run()
    [terminal] = [(topic, event) for topic in ("persisted", "job.failed") for event in scenario.fleet.events(topic)]
    return terminal


@pytest.mark.parametrize(
    ("options", "able", "reason"),
    [
        ({"redact_pii": True}, {}, "personal data are not found in the language nl-BE, only in de, en, es, fr"),
        ({"redact_pii": True}, {"a": ALL}, "personal data are not found in the language nl-BE, only in de, en, es, fr"),
        ({"redact": "forget"}, {"a": ALL, "b": ALL}, "set redact_pii, too"),
        ({"diarize": True}, {}, "a, b cannot tell speakers apart"),
        ({"speakers": 2}, {"a": ALL, "b": ALL}, "set diarize, too"),
        ({"enrich": True}, {"a": ALL, "b": ALL}, "nothing is made of transcripts here"),
    ],
)
async def test_what_cannot_be_done_is_refused(make_scenario, options, able, reason):
    scenario = make_scenario(FakeRecognizer("a"), FakeRecognizer("b"), abilities=able)

    topic, event = await ended(scenario, options=options, language="nl-BE")

    assert topic == "job.failed"
    assert reason in event["error"]
    assert event["code"] == "unsupported_option"
    assert len(scenario.fleet.log["audio.uploaded.dlq"]) == 1


@pytest.mark.parametrize(
    ("options", "able"),
    [
        ({}, {}),
        ({"enrich": False, "diarize": False, "redact_pii": False}, {}),
        ({"diarize": True}, {"b": ALL}),
        ({"diarize": True, "speakers": 2}, {"b": ALL}),
        ({"redact_pii": True}, {}),
        ({"redact_pii": True, "redact": "forget"}, {"a": ALL}),
        ({"redact_pii": True, "diarize": True}, {"a": ALL, "b": ALL}),
    ],
)
async def test_what_can_be_done_is_done(make_scenario, options, able):
    topic, _ = await ended(make_scenario(FakeRecognizer("a"), FakeRecognizer("b"), abilities=able), options=options)

    assert topic == "persisted"


@pytest.mark.parametrize(("able", "terminal"), [({}, "job.failed"), ({"a": ALL, "b": ALL}, "persisted")])
async def test_a_language_in_which_nobody_hides_personal_data_ends_the_job(make_scenario, able, terminal):
    """It is known only when it is heard. Recognizers that hide them by themselves may hear any."""
    scenario = make_scenario(FakeRecognizer("a", language="nl"), FakeRecognizer("b", language="nl"), abilities=able)

    topic, event = await ended(scenario, options={"redact_pii": True})

    assert topic == terminal
    assert event.get("code") == ("unsupported_option" if terminal == "job.failed" else None)
    assert not [uri async for uri in scenario.store.list("t/") if uri.endswith("raw_transcript.json")] or able


async def test_a_tenant_may_have_all_its_recordings_redacted(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="my name is Jonathan Miller"))
    settings = AccountSettings(redact_pii=True, redact="forget")
    await scenario.fleet.database.save_account_settings("t", settings, 0, "key")
    await ended(scenario)
    job = await scenario.fleet.database.job("t", JOB)

    assert (job.options["redact_pii"], job.options["redact"]) == (True, "forget")
    assert scenario.fleet.database.transcripts["t", JOB, 1].text == "my name is [NAME]"
    assert job.original_uri.endswith("/audio.redacted.flac")


async def test_an_upload_may_say_otherwise_than_its_tenant(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="my name is Jonathan Miller"))
    await scenario.fleet.database.save_account_settings("t", AccountSettings(redact_pii=True), 0, "key")
    await ended(scenario, options={"redact_pii": False})

    assert scenario.fleet.database.transcripts["t", JOB, 1].text == "my name is Jonathan Miller"


def test_recognizers_are_known_by_name_for_what_they_can():
    environment = {"CONCORD_RECOGNIZERS": "assemblyai,whisper-base,google", "ASSEMBLYAI_API_KEY": "k"}
    google = {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}

    pieces = abilities(from_env(environment | google))
    batches = abilities(from_env(environment | google | {"GOOGLE_CLOUD_BUCKET": "our-bucket"}))

    assert pieces == {"assemblyai": ALL, "whisper-base": {"channels"}, "google": frozenset()}
    assert batches["google"] == {"diarize"}


def test_nothing_is_asked_for_by_default():
    options = AudioUploaded(tenant_id="t", audio_uri="file:///a.wav", filename="a.wav").options

    assert (options.diarize, options.redact_pii, options.enrich) == (False, None, None)


def test_recognizers_are_known_by_name_for_the_languages_that_they_hear():
    names = "assemblyai,whisper-base,whisper-tiny.en,google,scripted-de"
    environment = {"CONCORD_RECOGNIZERS": names, "ASSEMBLYAI_API_KEY": "k", "GOOGLE_CLOUD_PROJECT": "p"}
    environment |= {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}

    heard = languages(from_env(environment))
    several = languages(from_env(environment | {"GOOGLE_SPEECH_LANGUAGES": "en-US,de-DE"}))

    assert [heard[name].one for name in names.split(",")] == [None, None, "en", "en", None]
    assert several["google"].one is None
    assert (heard["google"].hears("de"), heard["whisper-tiny.en"].hears("de")) == (True, False)
    assert heard["whisper-base"] == heard["assemblyai"] == heard["scripted-de"] == ANY
