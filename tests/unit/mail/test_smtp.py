"""Mail over a real SMTP server that fails at each verb: what is certainly not taken is told from what may have been."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from agents.commands.checks.mail import mail
from agents.fleet.environment import from_env
from schemas.errors import Transient
from sinks.mail.smtp import SmtpServer
from tests.servers.smtp import PASSWORD, USERNAME, smtp_server

SENDER, ANN, BOB = "concord@sender.example", "ann@reader.example", "bob@reader.example"
CONTENT = b"From: a\r\nSubject: b\r\n\r\n.a line with a dot\r\n.\r\nthe end\r\n"

#: What comes before the content: whatever happens there, the mail was not taken.
BEFORE = ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA")


@pytest.fixture
async def server(tmp_path):
    async with smtp_server(tmp_path, auth=True) as it:
        yield it


def client(server, **more):
    more = {"username": USERNAME, "password": SecretStr(PASSWORD), "cafile": server.cafile, "step_s": 5.0} | more
    return SmtpServer("localhost", server.port, **more)


async def send(client, *recipients):
    """Send to these; what was asked before the content, and what came of it."""
    asked = []

    async def about_to():
        asked.append(True)

    return asked, await client.send(SENDER, recipients or (ANN,), CONTENT, about_to)


async def test_a_mail_is_taken_whole_over_starttls(server):
    asked, attempt = await send(client(server), ANN, BOB)

    assert (asked, attempt.accepted, attempt.refused) == ([True], (ANN, BOB), {})
    assert "queued as 4711" in attempt.answer
    assert server.taken == [([ANN, BOB], CONTENT)]
    assert server.verbs == [
        "CONNECT",
        "EHLO",
        "STARTTLS",
        "EHLO",
        "AUTH",
        "MAIL",
        "RCPT",
        "RCPT",
        "DATA",
        "CONTENT",
        "QUIT",
    ]


async def test_a_mail_is_taken_over_tls_and_over_nothing(tmp_path):
    async with smtp_server(tmp_path, tls=True) as encrypted, smtp_server() as plain:
        await send(SmtpServer("localhost", encrypted.port, "tls", cafile=encrypted.cafile))
        await send(SmtpServer("localhost", plain.port, "none"))

        assert len(encrypted.taken) == len(plain.taken) == 1


@pytest.mark.parametrize("verb", BEFORE)
async def test_a_connection_that_is_lost_before_the_content_leaves_no_doubt(server, verb):
    server.trouble[verb] = ["drop"]
    with pytest.raises(Transient):
        await send(client(server))

    assert server.taken == []
    _, attempt = await send(client(server))
    assert attempt.accepted == (ANN,)


@pytest.mark.parametrize("verb", ["STARTTLS", "MAIL", "RCPT", "DATA"])
async def test_a_server_that_takes_it_later_says_so(server, verb):
    server.trouble[verb] = ["451 4.7.1 greylisted, come back in five minutes"]
    with pytest.raises(Transient, match="greylisted"):
        await send(client(server))

    assert server.taken == []


@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "DATA"])
async def test_a_server_that_never_answers_is_left(server, verb):
    server.trouble[verb] = ["hang"]
    with pytest.raises(Transient):
        await send(client(server, step_s=0.3))


@pytest.mark.parametrize("trouble", ["drop", "taken", "hang"])
async def test_an_answer_that_is_lost_behind_the_content_leaves_the_mail_in_doubt(server, trouble):
    server.trouble["CONTENT"] = [trouble]
    asked, attempt = await send(client(server, content_s=0.5))

    assert asked == [True]
    assert attempt.in_doubt
    assert attempt.accepted == ()
    assert len(server.taken) == (trouble == "taken")


async def test_a_farewell_that_fails_changes_nothing(server):
    server.trouble["QUIT"] = ["drop"]
    _, attempt = await send(client(server))

    assert attempt.accepted == (ANN,)


async def test_content_that_is_refused_is_refused_for_all_and_later_is_later(server):
    server.trouble["CONTENT"] = ["554 5.7.1 spam", "451 4.3.0 busy"]
    _, attempt = await send(client(server), ANN, BOB)
    with pytest.raises(Transient, match="busy"):
        await send(client(server))

    assert (attempt.accepted, attempt.in_doubt) == ((), False)
    assert attempt.refused == {ANN: "554 5.7.1 spam", BOB: "554 5.7.1 spam"}


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_refusal_is_final(server, verb):
    server.trouble[verb] = ["550 5.1.1 no such user"]
    asked, attempt = await send(client(server))

    assert (asked, attempt.accepted) == ([], ())
    assert attempt.refused == {ANN: "550 5.1.1 no such user"}


async def test_each_recipient_has_an_answer_of_its_own(server):
    server.trouble["RCPT"] = [{}, {BOB: "550 no such user"}, {"cyd@": "450 later"}]
    _, attempt = await send(client(server), ANN, BOB, "cyd@reader.example")

    assert attempt.accepted == (ANN,)
    assert attempt.refused == {BOB: "550 no such user"}
    assert server.taken == [([ANN], CONTENT)]


async def test_what_the_operator_can_mend_is_tried_again(server, tmp_path):
    async with smtp_server() as plain:
        with pytest.raises(Transient, match="STARTTLS"):
            await send(SmtpServer("localhost", plain.port))
        assert plain.verbs == ["CONNECT", "EHLO"]
    with pytest.raises(Transient, match="certificate"):
        await send(client(server, cafile=None))
    with pytest.raises(Transient, match="535"):
        await send(client(server, password=SecretStr("wrong")))
    with pytest.raises(Transient, match="SMTP_CAFILE"):
        await send(client(server, cafile=str(tmp_path / "missing.pem")))
    assert server.taken == []


async def test_an_error_of_ours_before_the_content_ends_the_session(server):
    async def about_to():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client(server).send(SENDER, [ANN], CONTENT, about_to)

    assert server.taken == []
    assert "CONTENT" not in server.verbs


def test_the_password_is_not_shown():
    assert PASSWORD not in repr(SmtpServer("localhost", 25, password=SecretStr(PASSWORD)))


async def test_a_check_ends_before_any_mail(server):
    await client(server).check(SENDER)
    assert server.verbs[-1] == "QUIT"
    assert {"MAIL", "DATA"}.isdisjoint(server.verbs)

    with pytest.raises(Transient, match="mail server"):
        await client(server, password=SecretStr("wrong")).check(SENDER)


async def test_doctor_tells_whether_mail_can_be_sent(server):
    names = {"CONCORD_ENRICHMENTS": "document,report,mail", "SMTP_HOST": "localhost", "SMTP_PORT": str(server.port)}
    names |= {"SMTP_FROM_EMAIL": SENDER, "SMTP_USERNAME": USERNAME, "SMTP_CAFILE": str(server.cafile)}
    [right] = await mail(from_env(names | {"SMTP_PASSWORD": PASSWORD}))
    [wrong] = await mail(from_env(names | {"SMTP_PASSWORD": "wrong"}))
    [none] = await mail(from_env({}))

    assert (right.level, "accepts the password" in right.result) == ("ok", True)
    assert (wrong.level, "wrong" in wrong.result) == ("fail", False)
    assert (none.level, server.taken) == ("ok", [])
