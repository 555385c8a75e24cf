"""Reports that are mailed: once, to those who are named, and never again by themselves when it is unknown."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from agents.commands.operations.mail import resending
from agents.corrections.editor import Editor
from agents.reports.delivery import DELAYS_S
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.enrichments import mail, report
from agents.stages.spec import MailService
from agents.upkeep.mail_requests import MailRequests
from schemas.accounts.settings import AccountSettings
from schemas.corrections.changes import WholeTranscript
from schemas.errors import Conflict, Unavailable
from schemas.events.job import JobReprocess
from sinks.accounts import Accounts
from sinks.fair_slots import FairSlots
from sinks.mail.smtp import SmtpServer
from sinks.memory.reader import MemoryReader
from tests.fleet.conftest import JOB, FakeRecognizer
from tests.servers.smtp import smtp_server

ANN, BOB = "ann@reader.example", "bob@reader.example"
KINDS = ("report", "mail")


class Here:
    """Renders in this process."""

    async def pdf(self, content):
        return b"%PDF " + content.title.encode()

    async def mail(self, templates, values):
        from agents.reports.templates import rendered

        return rendered(templates, values)

    async def close(self): ...


@pytest.fixture
async def server():
    async with smtp_server() as it:
        yield it


@pytest.fixture
async def scenario(make_scenario, server, monkeypatch):
    """A fleet that mails reports."""
    monkeypatch.setattr(report, "Renderer", Here)
    monkeypatch.setattr(mail, "Renderer", Here)
    it = make_scenario(FakeRecognizer("a", "hello <b>there</b>"), FakeRecognizer("b"), enrichments=KINDS)
    database = it.fleet.database
    it.tasks, it.closing = [], []

    def tasks(limit):
        it.tasks.append(LeasedTasks(database, f"test {limit}", limit))
        return it.tasks[-1]

    it.resources = SimpleNamespace(
        store=it.store,
        database=database,
        leased_tasks=tasks,
        on_close=it.closing.append,
        accounts=Accounts(database, AccountSettings(mail_to=()), seconds=0),
        mail_service=lambda: MailService(
            SmtpServer("localhost", server.port, "none"), "concord@sender.example", it.domains, it.attached, it.url
        ),
    )
    it.domains, it.attached, it.url = frozenset(), 1 << 20, None
    it.fleet.stages = [*it.fleet.stages, await report.SPEC.open(it.resources), await mail.SPEC.open(it.resources)]
    yield it
    for one in it.tasks:
        await one.close()


def status(scenario):
    return scenario.fleet.status("t", JOB).enrichment["mail"]


async def row(scenario, run=1):
    return await scenario.fleet.database.mail("t", JOB, run)


async def test_a_report_is_mailed_once_to_those_whom_the_upload_names(scenario, server):
    await scenario.upload(options={"mail_to": [ANN, BOB]}, metadata={"title": "Zoë's call\r\nBcc: eve@x.example"})
    await scenario.fleet.run()

    [event] = scenario.fleet.events("report.delivered")
    [message] = server.messages
    assert server.taken[0][0] == [ANN, BOB]
    assert (event["accepted"], event["refused"], event["message_id"]) == (2, 0, message["Message-ID"][1:-1])
    assert message["Message-ID"].startswith(f"<{scenario.fleet.log['report.delivered'][0].header('ce_id')}@")
    assert (message["To"], message["From"], message["Bcc"]) == (f"{ANN}, {BOB}", "concord@sender.example", None)
    assert "Zoë's call" in message["Subject"]
    [attached] = message.iter_attachments()
    assert (attached.get_content_type(), attached.get_filename()) == ("application/pdf", f"{JOB}.pdf")
    assert attached.get_content().startswith(b"%PDF")
    assert status(scenario).state == "done"
    assert ((await row(scenario)).state, (await row(scenario)).accepted) == ("sent", [ANN, BOB])
    assert not {ANN, BOB} & set(str(scenario.fleet.events("report.delivered")).split("'"))


async def test_without_recipients_nothing_is_mailed(scenario, server):
    await scenario.upload()
    await scenario.fleet.run()

    assert server.taken == []
    assert set(scenario.fleet.status("t", JOB).enrichment) == {"report"}
    assert await row(scenario) is None


async def test_what_is_delivered_again_mails_nothing_again(scenario, server):
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()
    for topic in ("persisted", "report.generated", "mail.due"):
        for record in [*scenario.fleet.log[topic]]:
            scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    assert len(server.taken) == len(scenario.fleet.events("report.delivered")) == 1


async def test_a_greylisting_server_is_asked_again_minutes_later(scenario, server):
    server.trouble["RCPT"] = ["450 4.7.1 greylisted"] * 2
    began = scenario.fleet.clock()
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run(until=timedelta(seconds=30))
    assert (status(scenario).state, server.taken) == ("retrying", [])
    await scenario.fleet.run()

    assert len(server.taken) == len(scenario.fleet.events("report.delivered")) == 1
    assert scenario.fleet.clock() - began >= timedelta(seconds=DELAYS_S[0] + DELAYS_S[1])
    assert (await row(scenario)).attempts == 3


async def test_only_those_who_still_wait_are_mailed_again(scenario, server):
    server.trouble["RCPT"] = [None, {BOB: "450 later"}]
    await scenario.upload(options={"mail_to": [ANN, BOB]})
    await scenario.fleet.run()

    first, second = server.messages
    assert [recipients for recipients, _ in server.taken] == [[ANN], [BOB]]
    assert first["Message-ID"] == second["Message-ID"]
    assert (first["To"], second["To"]) == (f"{ANN}, {BOB}", f"{ANN}, {BOB}")
    assert scenario.fleet.events("report.delivered")[0]["accepted"] == 2


async def test_a_server_that_never_takes_it_is_given_up(scenario, server):
    server.trouble["MAIL"] = ["451 busy"] * 99
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run(until=timedelta(days=3))

    [event] = scenario.fleet.events("enrichment.failed")
    assert (event["kind"], event["code"]) == ("mail", "mail_refused")
    assert "given up after" in event["error"]
    assert (await row(scenario)).attempts == len(DELAYS_S) + 1
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_refusal_is_final_and_says_why(scenario, server):
    server.trouble["RCPT"] = ["550 5.1.1 no such user"]
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()

    [event] = scenario.fleet.events("enrichment.failed")
    assert "no such user" in event["error"]
    assert server.verbs.count("MAIL") == 1
    assert (await row(scenario)).refused == {ANN: "550 5.1.1 no such user"}
    assert scenario.fleet.events("report.delivered") == []


@pytest.mark.parametrize("trouble", ["drop", "taken"])
async def test_a_lost_answer_is_told_and_nothing_is_sent_again(scenario, server, trouble):
    server.trouble["CONTENT"] = [trouble]
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()
    for record in [*scenario.fleet.log["report.generated"], *scenario.fleet.log["mail.due"]]:
        scenario.fleet.deliver_again(record)
    [letter] = scenario.fleet.log["mail.due.dlq"]
    headers = tuple((name, value) for name, value in letter.headers if not name.startswith("dlq-"))
    scenario.fleet.publish("mail.due", letter.value, letter.key, (*headers, ("ce_replay", b"1")))
    await scenario.fleet.run()

    assert server.verbs.count("CONTENT") == 1
    assert (await row(scenario)).state == "in_doubt"
    assert (status(scenario).state, status(scenario).code) == ("failed", "mail_in_doubt")


async def test_a_mail_that_a_killed_worker_was_sending_is_in_doubt(scenario, server):
    await scenario.upload(options={"mail_to": [ANN]})
    server.trouble["MAIL"] = ["451 later"]
    await scenario.fleet.run(until=timedelta(seconds=30))
    database = scenario.fleet.database
    claimed = await database.claim_mail(await row(scenario))
    await database.keep_mail(replace(claimed, state="sending"))
    await scenario.fleet.run()

    assert server.taken == []
    assert (await row(scenario)).state == "in_doubt"


async def edit(scenario):
    """A person replaces the transcript."""
    database = scenario.fleet.database
    editor = Editor(MemoryReader(database), scenario.store, database, FairSlots(4, 2))
    transcript = database.transcripts["t", JOB, 1]
    await editor.rewrite(transcript, WholeTranscript(text=f"Hello again {transcript.version}."), "key")


async def test_an_edit_makes_the_report_anew_and_no_further_mail(scenario, server):
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()
    await edit(scenario)
    await scenario.fleet.run()

    assert [event["transcript_version"] for event in scenario.fleet.events("report.generated")] == [1, 2]
    assert len(server.taken) == len(scenario.fleet.events("report.delivered")) == 1
    assert status(scenario).state == "done"


@pytest.mark.parametrize("trouble", ["taken", "554 spam", None])
async def test_a_mail_is_sent_again_when_somebody_says_so(scenario, server, trouble):
    server.trouble["CONTENT"] = [trouble]
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()
    database = scenario.fleet.database
    [written] = await database.commit([resending(await database.job("t", JOB))])
    [refused] = await database.commit([resending(await database.job("t", JOB))])
    await scenario.fleet.run()

    assert (written.applied, refused.applied) == (True, False)
    assert server.verbs.count("CONTENT") == 2
    assert (await row(scenario)).state == "sent"
    assert [event["generation"] for event in scenario.fleet.events("report.delivered")][-1] == 2
    assert len({message["Message-ID"] for message in server.messages}) == 1


async def test_a_mail_that_is_sent_again_after_an_edit_has_the_newest_report(scenario, server):
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()
    await edit(scenario)
    await scenario.fleet.run()
    database = scenario.fleet.database
    await database.commit([resending(await database.job("t", JOB))])
    await scenario.fleet.run()

    assert len({message["Message-ID"] for message in server.messages}) == 2
    assert [event["transcript_version"] for event in scenario.fleet.events("report.delivered")] == [1, 2]


async def test_the_next_run_has_a_mail_of_its_own(scenario, server):
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()
    scenario.fleet.publish(
        "intake.due", JobReprocess(tenant_id="t", job_id=JOB, run=2), headers=(("ce_type", b"job.reprocess"),)
    )
    await scenario.fleet.run()

    assert len({message["Message-ID"] for message in server.messages}) == 2


async def test_where_no_report_could_be_made_none_is_mailed(scenario, server, monkeypatch):
    async def refuse(*_):
        from schemas.errors import InvalidInput

        raise InvalidInput("no such thing")

    monkeypatch.setattr(Here, "pdf", refuse)
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()

    assert server.taken == []
    assert "there is no report to send: no such thing" in status(scenario).error


async def test_a_large_report_is_linked_to_and_a_domain_may_be_closed(scenario, server):
    scenario.attached, scenario.url, scenario.domains = 3, "https://concord.example/", frozenset({"reader.example"})
    scenario.fleet.stages = [*scenario.fleet.stages[:-1], await mail.SPEC.open(scenario.resources)]
    await scenario.upload(options={"mail_to": [ANN, "eve@elsewhere.example"]})
    await scenario.fleet.run()

    [message] = server.messages
    assert [*message.iter_attachments()] == []
    assert f"https://concord.example/jobs/{JOB}/report" in message.get_body(("plain",)).get_content()
    assert server.taken[0][0] == [ANN]
    assert scenario.fleet.events("report.delivered")[0]["refused"] == 1


async def test_what_a_call_says_is_no_markup_in_a_mail(scenario, server):
    await scenario.upload(options={"mail_to": [ANN]}, metadata={"title": "<img src=x> {{ 7*7 }}"})
    await scenario.fleet.run()

    html = server.messages[0].get_body(("html",)).get_content()
    assert "&lt;img src=x&gt; {{ 7*7 }}" in html
    assert "<img" not in html


async def test_a_tenant_has_its_own_words_and_recipients(scenario, server):
    settings = AccountSettings(mail_to=(BOB,), mail_subject="Call {{ reference }}", mail_text="{{ about[0] }}")
    await scenario.fleet.database.save_account_settings("t", settings, 0, "x")
    await scenario.upload(reference="order 1", job_id=None)
    await scenario.fleet.run()

    [message] = server.messages
    assert (message["To"], message["Subject"]) == (BOB, "Call order 1")
    assert message.get_body(("plain",)).get_content().startswith("No summary was made")


async def test_a_template_that_fails_is_told(scenario, server):
    settings = AccountSettings(mail_subject="{{ about[99] }}")
    await scenario.fleet.database.save_account_settings("t", settings, 0, "x")
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()

    assert server.taken == []
    assert "mail_subject" in status(scenario).error


async def test_a_database_that_is_away_behind_the_content_is_waited_for(scenario, server, monkeypatch):
    database, kept = scenario.fleet.database, []

    async def keep(mail):
        kept.append(mail.state)
        if kept == ["sending", "sent"]:
            raise Unavailable("away")
        return await type(database).keep_mail(database, mail)

    monkeypatch.setattr(database, "keep_mail", keep, raising=False)
    await scenario.upload(options={"mail_to": [ANN]})
    await scenario.fleet.run()

    assert kept == ["sending", "sent", "sent"]
    assert len(server.taken) == 1
    assert status(scenario).state == "done"


async def test_a_person_has_the_report_mailed_to_somebody_once(scenario, server):
    await scenario.upload()
    await scenario.fleet.run()
    database = scenario.fleet.database
    requests = MailRequests(database, "concord@sender.example")
    job, id = await database.job("t", JOB), uuid4()
    await requests.send(job, [BOB], "key_1", id)
    await requests.send(job, [BOB], "key_1", id)
    with pytest.raises(Conflict, match="being sent"):
        await requests.send(job, [ANN], "key_1", uuid4())
    await scenario.fleet.run()

    assert [recipients for recipients, *_ in server.taken] == [[BOB]]
    assert ((await row(scenario)).state, (await row(scenario)).accepted) == ("sent", [BOB])
    assert status(scenario).state == "done"
    await requests.send(await database.job("t", JOB), [ANN], "key_1", uuid4())
    await scenario.fleet.run()
    assert [recipients for recipients, *_ in server.taken] == [[BOB], [ANN]]
    assert server.messages[1]["To"] == ANN
    await database.commit([resending(await database.job("t", JOB))])
    await scenario.fleet.run()
    assert [recipients for recipients, *_ in server.taken] == [[BOB], [ANN], [ANN]]


async def test_what_is_in_doubt_is_sent_where_a_person_says_so(scenario, server):
    await scenario.upload(options={"mail_to": [ANN]})
    server.trouble["CONTENT"] = ["drop"]
    await scenario.fleet.run()
    assert (await row(scenario)).state == "in_doubt"
    requests = MailRequests(scenario.fleet.database, "concord@sender.example")
    await requests.send(await scenario.fleet.database.job("t", JOB), [BOB], "key_1", uuid4())
    await scenario.fleet.run()

    assert ((await row(scenario)).state, (await row(scenario)).accepted) == ("sent", [BOB])


async def test_without_a_report_nothing_can_be_mailed(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload()
    await scenario.fleet.run()
    requests = MailRequests(scenario.fleet.database, "concord@sender.example")
    with pytest.raises(Conflict, match="no report"):
        await requests.send(await scenario.fleet.database.job("t", JOB), [BOB], "key_1", uuid4())
