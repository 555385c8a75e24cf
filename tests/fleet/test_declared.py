"""What an operator declares that recognizers outside of Concord can do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agents.asr.outside.over_kafka import OverKafka
from agents.fleet.environment import from_env
from agents.fleet.recognizers import abilities, languages
from schemas.errors import SettingsError
from tests.fleet.conftest import JOB, FakeRecognizer
from tests.fleet.test_over_kafka import NAME, answer, answers, begin

NAMED = {"CONCORD_RECOGNIZERS": "scripted-a,kafka:acme,webhook-b", "WEBHOOK_SECRET": "whsec_" + "MDEy" * 8}
DECLARED = NAMED | {"CONCORD_RECOGNIZER_OPTIONS": "kafka:acme=diarize"}


async def test_labels_of_one_that_declares_them_are_opinions_about_speakers(make_scenario):
    able = abilities(from_env(DECLARED))
    assert able == {"scripted-a": frozenset(), NAME: {"diarize"}, "webhook-b": frozenset()}
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME), abilities=able)
    request = await begin(scenario, options={"diarize": True, "speakers": 2})
    assert (request["diarize"], request["speakers"]) == (True, 2)
    labelled = answer(request)
    for word, speaker in zip(labelled["words"], ("anna", "anna", "ben"), strict=True):
        word["speaker"] = speaker
    await answers(scenario, labelled)

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.fleet.database.transcripts["t", JOB, 1].speakers == ["anna", "ben"]


async def test_without_the_declaration_speakers_that_nothing_tells_apart_are_refused(make_scenario):
    able = abilities(from_env(NAMED))
    scenario = make_scenario(FakeRecognizer("a"), OverKafka(NAME), abilities=able)
    await scenario.upload(options={"diarize": True})
    await scenario.fleet.run(until=timedelta(minutes=1))

    [failed] = scenario.fleet.events("job.failed")
    assert failed["code"] == "unsupported_option"
    assert "CONCORD_RECOGNIZER_OPTIONS" in failed["error"]


def test_languages_and_redaction_are_declared_too():
    declared = from_env(
        DECLARED
        | {"CONCORD_RECOGNIZER_OPTIONS": "kafka:acme=diarize+redact_pii,webhook-b=redact_pii"}
        | {"CONCORD_RECOGNIZER_LANGUAGES": "webhook-b=de, kafka:acme=en+fr"}
    )
    assert abilities(declared)["webhook-b"] == {"redact_pii"}
    heard = languages(declared)
    assert (heard["webhook-b"].one, heard[NAME].one, heard["scripted-a"].one) == ("de", None, None)
    assert (heard[NAME].hears("fr"), heard[NAME].hears("de")) == (True, False)


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"OPTIONS": "kafka:acme"}, r"OPTIONS: write it as kafka:acme=diarize\+redact_pii"),
        ({"LANGUAGES": "kafka:acme"}, r"LANGUAGES: write it as kafka:acme=en\+de"),
        ({"OPTIONS": "kafka:acme=diarise"}, r"kafka:acme cannot declare 'diarise'; write diarize\+redact_pii, or one"),
        ({"OPTIONS": "kafka:acme="}, r"kafka:acme cannot declare ''; write diarize"),
        (
            {"OPTIONS": "scripted-a=diarize"},
            r"what scripted-a can is known; name kafka:\* and webhook-\* only",
        ),
        ({"OPTIONS": "kafka:other=diarize"}, r"kafka:other is not in CONCORD_RECOGNIZERS: add it there, or remove it"),
        ({"LANGUAGES": "webhook-c=de"}, r"LANGUAGES: webhook-c is not in CONCORD_RECOGNIZERS"),
        ({"LANGUAGES": "webhook-b=de-AT+en"}, r"LANGUAGES: 'de-AT' of webhook-b is no language: write en\+de"),
    ],
    ids=str,
)
def test_declarations_that_are_wrong_are_refused_at_the_start(variables, error):
    with pytest.raises(SettingsError, match=error):
        from_env(DECLARED | {f"CONCORD_RECOGNIZER_{name}": value for name, value in variables.items()})
