"""What is made of conversations of voice agents: summaries, paid once, by our prompt or the account's; and the same
bytes for the same conversation.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest

from agents.asr.rate_limit import ProviderLimiter
from agents.llm.texts.questions import TextQuestions
from agents.llm.texts.scripted import ScriptedTexts
from agents.reports.pdf import pdf
from agents.runtime.metrics import Metrics
from agents.upkeep.cancelling import cancelled
from schemas.accounts.settings import AccountSettings
from schemas.errors import NotAccepted
from schemas.events.job import JobReprocess
from sinks.accounts import Accounts
from tests.fleet.conftest import FakeRecognizer, ProbeHere
from tests.fleet.conversations import ACCOUNT, CONVERSATION, JOB, Here, calls, mp3
from tests.servers.elevenlabs import Scripted, elevenlabs_server
from tests.servers.smtp import smtp_server


def reply(prompt):
    """A report that cites the first utterance."""
    first = json.loads(prompt.content)["utterances"][0]
    point = {"text": "They answer the telephone.", "segment": first["id"], "quote": first["text"]}
    action = point | {"text": "Move the appointment", "who": "Harbour Dental", "when": "Thursday"}
    return {
        "topic": "An appointment is moved",
        "sentiment": "positive",
        "key_points": [point],
        "action_items": [action],
        "decisions": [],
        "open_questions": [],
        "participants": [],
        "entities": [],
    }


class Typeset(Here):
    """Makes PDFs in this process."""

    async def pdf(self, content):
        await super().pdf(content)
        return pdf(content)


@pytest.fixture
async def fleet(make_scenario, monkeypatch):
    """A fleet with a model, not started."""
    scenario = make_scenario(FakeRecognizer("a"), FakeRecognizer("b"))
    async with elevenlabs_server() as elevenlabs, smtp_server() as smtp:
        elevenlabs.conversations[CONVERSATION] = Scripted(audio=mp3())
        async with calls(scenario, elevenlabs, smtp, ProbeHere(processes=0), monkeypatch) as it:
            it.model = ScriptedTexts(reply)
            it.ask = lambda tokens=10**6: TextQuestions(
                it.model,
                it.store,
                it.fleet.database,
                ProviderLimiter(it.fleet.database, "openai", patience_s=0.1),
                Accounts(it.fleet.database, it.settings, seconds=0),
                tokens,
                Metrics(),
            )
            it.questions = it.ask()
            yield it


async def state(fleet, until=timedelta(days=1)):
    """How far the conversation is when somebody has asked for it."""
    fleet.request()
    await fleet.fleet.run(until=until)
    return await fleet.processing()


async def test_a_summary_is_made_by_our_prompt_for_conversations(fleet):
    await fleet.start()
    assert (await state(fleet)).status == "completed"

    [asked] = fleet.model.asked
    assert "voice agent" in asked.instructions
    [event] = fleet.fleet.events("summary.generated")
    assert event["template"] == "conversation/v1"
    report = fleet.renderer.reports[CONVERSATION]
    assert report.about[:2] == ("An appointment is moved", "Sentiment: positive.")
    assert [section.heading for section in report.sections] == ["Key points", "Action items"]


@pytest.mark.parametrize("name", ["summary.conversation", "summary"])
async def test_the_accounts_own_prompt_takes_its_place(fleet, name):
    fleet.settings = AccountSettings(templates={name: "Who is late?", "summary.other": "no"})
    await fleet.start()
    await state(fleet)

    [asked] = fleet.model.asked
    assert asked.instructions.endswith("Who is late?")
    assert "voice agent" not in asked.instructions


async def test_an_hour_without_the_model_delays_the_mail_and_loses_nothing(fleet):
    began, answer = fleet.fleet.clock(), fleet.model.answer

    async def away(prompt):
        if fleet.fleet.clock() < began + timedelta(hours=1):
            raise NotAccepted("nobody is there")
        return await answer(prompt)

    fleet.model.answer = away
    await fleet.start()
    waiting = await state(fleet, timedelta(minutes=50))
    assert (waiting.status, waiting.current_step, waiting.error) == ("summarizing", "summary", "nobody is there")
    assert fleet.smtp.taken == []

    await fleet.fleet.run()
    assert (await fleet.processing()).status == "completed"
    assert (len(fleet.model.asked), len(fleet.smtp.taken)) == (1, 1)


async def test_an_account_over_its_limit_is_told_what_to_do_and_pays_once_when_it_has_more(fleet):
    fleet.questions = fleet.ask()
    fleet.settings = AccountSettings(monthly_tokens=0)
    fleet.questions = fleet.ask()
    await fleet.start()
    failed = await state(fleet)
    assert (failed.status, failed.current_step, failed.code) == ("failed", "summary", "budget_exhausted")
    assert "monthly_tokens" in failed.what_to_do
    assert fleet.model.asked == []

    settings = AccountSettings(monthly_tokens=10**6)
    await fleet.fleet.database.save_account_settings(ACCOUNT, settings, 0, "x")
    assert (await state(fleet)).status == "completed"
    assert (len(fleet.model.asked), len(fleet.smtp.taken), fleet.elevenlabs.count("get")) == (1, 1, 1)


async def test_a_summary_that_is_paid_for_is_not_paid_for_again_by_the_next_run(fleet):
    fleet.smtp.trouble["RCPT"] = ["550 no such user"]
    await fleet.start()
    assert (await state(fleet)).code == "mail_refused"
    assert (await state(fleet)).status == "completed"

    assert (len(fleet.model.asked), len(fleet.smtp.taken)) == (1, 1)
    assert ((await fleet.job()).run, len(fleet.fleet.events("summary.generated"))) == (2, 2)


async def test_a_run_that_is_cancelled_while_it_is_reconciled_fetches_nothing_again(fleet):
    await fleet.start()
    fleet.request()
    fleet.fleet.stages = [stage for stage in fleet.fleet.stages if stage.name != "reconcile"]
    await fleet.fleet.run()
    await fleet.fleet.database.commit([cancelled(await fleet.job(), "no more")])
    assert (await fleet.processing()).status == "cancelled"

    again = await state(fleet)
    assert (again.status, fleet.elevenlabs.count("get"), fleet.elevenlabs.count("audio")) == ("storing", 1, 1)


#: sha256 of the PDF about the conversation of the tests. Another text of a report, another version of ReportLab or of
#: the fonts, another zlib, makes another: then look at the PDF, and put its hash here.
PDF = "dcc685342dbfbf27c670c179cc8acfeaaa06b7404d22444cedda69217711500c"


async def test_a_known_conversation_makes_the_same_bytes(fleet):
    fleet.renderer = Typeset()
    await fleet.start()
    assert (await state(fleet)).status == "completed"
    first = await fleet.blob(f"{ACCOUNT}/reports/{CONVERSATION}.pdf")
    again = JobReprocess(tenant_id=ACCOUNT, job_id=JOB, run=2)
    fleet.fleet.publish("intake.due", again, headers=(("ce_type", b"job.reprocess"),))
    await fleet.fleet.run()
    report = fleet.renderer.reports[CONVERSATION]
    second = pdf(report.model_copy(update={"facts": tuple(_of_run_1(report.facts))}))

    assert (await fleet.job()).run == 2
    assert second == first
    assert hashlib.sha256(first).hexdigest() == PDF


def _of_run_1(facts):
    for fact in facts:
        yield fact.model_copy(update={"value": fact.value.replace("run 2", "run 1")})
