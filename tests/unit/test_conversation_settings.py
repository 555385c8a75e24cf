"""Settings of conversations, what they make workers do, and what `concord doctor` says about them."""

from __future__ import annotations

import pytest

from agents.commands.checks.conversations import conversations
from agents.fleet.environment import from_env
from agents.fleet.settings import account_defaults
from schemas.errors import SettingsError
from tests.servers.elevenlabs import KEY, elevenlabs_server

MAIL = {"SMTP_HOST": "mail.example", "SMTP_FROM_EMAIL": "concord@sender.example"}


def made(**environment):
    return from_env(environment)


def test_without_a_key_nothing_changes():
    assert made().kinds == made().enrichments == ("document", "index")
    assert "ELEVENLABS_API_KEY" in made().lacks_for_conversations[0]


def test_the_key_makes_workers_make_what_conversations_need_and_uploads_get_none_of_it():
    it = made(ELEVENLABS_API_KEY="xi", **MAIL)

    assert it.kinds == ("document", "index", "summary", "report", "mail")
    assert it.enrichments == ("document", "index")
    assert it.lacks_for_conversations == ()
    assert account_defaults(it).mail_to is None
    assert account_defaults(it).max_conversation_mb == 10
    assert made(ELEVENLABS_API_KEY="xi", CONCORD_ENRICHMENTS="none", **MAIL).kinds == ("summary", "report", "mail")


def test_without_a_mail_server_there_is_no_stage_for_mails_and_requests_are_refused():
    it = made(ELEVENLABS_API_KEY="xi")

    assert it.kinds == ("document", "index", "summary", "report")
    assert it.lacks_for_conversations == ("No mail can be sent: have an operator set SMTP_HOST and SMTP_FROM_EMAIL.",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ELEVENLABS_BASE_URL": "ftp://a"},
        {"CONCORD_CONVERSATION_AUDIO_MB": "0"},
        {"CONCORD_CONVERSATION_WAIT_S": "-1"},
        {"CONCORD_CONVERSATION_RATE": "0"},
        {"ELEVENLABS_API_KEY": "xi", "SMTP_HOST": "mail.example"},
        {"ELEVENLABS_API_KEY": "xi", "CONCORD_ENRICHMENTS": "mail", **MAIL},
        MAIL,
    ],
)
def test_what_makes_no_sense_is_refused_at_the_start(wrong):
    with pytest.raises(SettingsError):
        made(**wrong)


def test_the_key_is_never_shown():
    assert "xi-secret" not in repr(made(ELEVENLABS_API_KEY="xi-secret", **MAIL))


@pytest.mark.parametrize(
    ("mode", "level", "says"),
    [
        ("", "ok", "accepts the key"),
        ("key", "fail", "refused"),
        ("forbidden", "fail", "convai_read"),
        ("rate", "warn", "429"),
        ("cut", "fail", "not reached"),
    ],
)
async def test_doctor_asks_elevenlabs(mode, level, says):
    async with elevenlabs_server() as server:
        server.misbehave(mode)
        [finding] = await conversations(made(ELEVENLABS_API_KEY=KEY, ELEVENLABS_BASE_URL=server.url, **MAIL))

    assert (finding.level, says in f"{finding.result} {finding.advice}") == (level, True)
    assert KEY not in str(finding)


async def test_doctor_says_what_is_missing():
    async with elevenlabs_server() as server:
        findings = await conversations(made(ELEVENLABS_API_KEY=KEY, ELEVENLABS_BASE_URL=server.url))

    assert [(finding.level, "SMTP_HOST" in finding.result) for finding in findings] == [("ok", False), ("fail", True)]
    [absent] = await conversations(made())
    assert (absent.level, "not configured" in absent.result) == ("ok", True)


async def test_a_key_that_is_there_for_the_recognizer_alone_is_no_failure():
    async with elevenlabs_server() as server:
        server.misbehave("forbidden")
        settings = made(
            ELEVENLABS_API_KEY=KEY, ELEVENLABS_BASE_URL=server.url, CONCORD_RECOGNIZERS="whisper-base,elevenlabs"
        )
        findings = await conversations(settings)

    assert [finding.level for finding in findings] == ["warn", "warn"]
