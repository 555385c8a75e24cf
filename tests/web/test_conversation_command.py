"""`concord conversation` on the HTTP service."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from uuid import uuid4

import pytest

from agents.__main__ import completed, parser_of
from agents.commands.remote import client as remote
from agents.commands.remote import conversation
from schemas.jobs.outcome import EnrichmentChange, Failure, Step, failed_enrichment, failed_progress
from tests.web.test_conversations import OWN, Service
from web.resources.conversations.views import CONVERSATION

LINE = ("conversation", CONVERSATION, "--account", "acme", "--email", "ann@example.com")


@pytest.fixture
async def service(monkeypatch):
    monkeypatch.setattr(conversation, "LOOK_S", 0.02)
    monkeypatch.setattr(remote, "WAITS_S", (0.0,))
    async with Service() as service:
        yield service


@pytest.fixture
def concord(service, capsys):
    """Run the command in a thread: its status, and what it printed."""

    async def run(*line, key="acme-key", url=None):
        environment = {"CONCORD_URL": url or service.url, "CONCORD_API_KEY": key}
        arguments = parser_of(line).parse_args([*line])
        status = await asyncio.to_thread(completed, lambda: arguments.remote(arguments, environment))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


async def test_a_conversation_is_asked_for_and_asked_for_again(concord):
    status, out, err = await concord(*LINE)
    again, same, _ = await concord(*LINE, "--json")

    assert (status, again, err) == (0, 0, "")
    assert out == f"{OWN.rpartition('/')[2]}  The conversation is on its way.\n"
    assert json.loads(same)["data"]["status"] == "extracting"


async def test_it_is_followed_until_its_report_is_mailed(concord, service):
    running = asyncio.create_task(concord(*LINE, "--wait"))
    while not service.database.all_jobs():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    await service.completed("summary", "report")
    await asyncio.sleep(0.2)
    await service.step(enrichment=EnrichmentChange(run=1, kind="mail", state="done"))
    status, out, err = await running

    assert (status, err) == (0, "")
    walk = [line.split()[2:4] for line in out.splitlines()[1:] if "%" in line]
    assert walk[0] == ["10%", "extracting"]
    assert ["90%", "sending_email"] in walk
    assert walk[-1] == ["100%", "completed"]
    assert "The recording ends early." in out
    assert re.search(rf"^transcript http://127\.0\.0\.1:\d+{OWN}/files/transcript$", out, re.MULTILINE)


async def test_one_that_fails_says_why_and_what_to_do(concord, service):
    await concord(*LINE)
    await service.step(progress=failed_progress(1, "fetch", Failure("there is none", "not_found")))
    running = asyncio.create_task(concord(*LINE, "--wait"))
    while (await service.database.job("acme", service.database.all_jobs()[0].job_id)).run == 1:
        await asyncio.sleep(0.01)
    await service.step(progress=failed_progress(2, "fetch", Failure("there is none", "not_found")))
    status, out, err = await running

    assert status == remote.FAILED
    assert "goes on where it ended" in out
    assert err.startswith("failed: there is none\n")
    assert "ELEVENLABS_API_KEY" in err


async def test_each_step_that_failed_is_told(concord, service, monkeypatch):
    looked, shown = threading.Event(), conversation._print

    def show(*arguments, **more):
        looked.set()
        shown(*arguments, **more)

    monkeypatch.setattr(conversation, "_print", show)
    await concord(*LINE)
    await service.completed("report")
    [job] = service.database.all_jobs()
    running = asyncio.create_task(concord(*LINE, "--wait"))
    await asyncio.to_thread(looked.wait, 10)  # asked for later, its next run would begin
    for kind, code in (("summary", "budget_exhausted"), ("mail", "mail_refused")):
        await service.database.commit([Step("x", uuid4(), failed_enrichment(job, kind, Failure(f"no {kind}", code)))])
    status, _, err = await running

    assert status == remote.FAILED
    assert err.startswith("failed: no summary\n")
    assert "monthly_tokens" in err
    assert "mail: no mail\n" in err


@pytest.mark.parametrize(
    ("line", "more", "status", "said"),
    [
        (LINE, {"key": "wrong"}, remote.REFUSED, "key"),
        ((*LINE[:3], "bolt", *LINE[4:]), {}, remote.NOT_FOUND, "no such tenant"),
        ((*LINE[:1], "a/b", *LINE[2:]), {}, remote.INVALID, "conversation_id"),
        ((*LINE[:5], "ann"), {}, remote.INVALID, "email_id"),
        (LINE, {"url": "http://127.0.0.1:1"}, remote.AWAY, "no fleet answers"),
    ],
)
async def test_each_failure_has_a_status_and_says_what_to_do(concord, line, more, status, said):
    code, _, err = await concord(*line, **more)

    assert code == status
    assert said in err


async def test_the_account_is_that_of_the_key(concord, service):
    status, _, err = await concord(*LINE[:2], *LINE[4:], "--verify")

    assert (status, err) == (0, "")
    [job] = service.database.all_jobs()
    assert (job.tenant_id, job.options["verify"]) == ("acme", True)
