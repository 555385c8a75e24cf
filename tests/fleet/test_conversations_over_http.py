"""A conversation from the POST to the mail: HTTP interface and stages on one database, with a local ElevenLabs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schemas import blob_names
from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.memory.reader import MemoryReader
from tests.fleet.conftest import FakeRecognizer, ProbeHere
from tests.fleet.conversations import ACCOUNT, ANN, CONVERSATION, calls, mp3
from tests.servers.elevenlabs import Scripted, elevenlabs_server
from tests.servers.smtp import smtp_server
from tests.unit.web.service import Worker
from tests.unit.web.walk import conversation_resources

KEY = {"X-API-Key": "t-key"}
BODY = {"email_id": ANN, "account_id": ACCOUNT, "conversation_id": CONVERSATION}
POST = "/api/v1/postprocess/conversation"


@pytest.fixture
async def started(make_scenario, monkeypatch):
    scenario = make_scenario(FakeRecognizer("a", "Hello."), FakeRecognizer("b", "Hello."))
    async with elevenlabs_server() as elevenlabs, smtp_server() as smtp:
        elevenlabs.conversations[CONVERSATION] = Scripted(audio=mp3())
        async with calls(scenario, elevenlabs, smtp, ProbeHere(processes=0), monkeypatch) as it:
            await it.start()
            yield it


@pytest.fixture
async def service(started):
    database = started.fleet.database
    reader = MemoryReader(database)
    accounts = Accounts(database, AccountSettings(), seconds=0)
    resources = conversation_resources(database, accounts, reader, started.store)
    async with Worker(
        database, store=started.store, reader=reader, resources=resources, keys="t=t-key,*=root-key"
    ) as service:
        yield service


async def shown(service, answer):
    path = f"/api/v1/postprocess/{answer['data']['processing_id']}"
    return path, (await service.json(path, KEY))["data"]


async def test_a_conversation_that_is_posted_is_fetched_summarised_and_mailed(started, service):
    answer = await (await service.client.post(POST, json=BODY, headers=KEY)).json()
    assert answer["data"]["status"] == "pending"
    await started.fleet.run(until=timedelta(hours=1))
    path, data = await shown(service, answer)

    assert (data["status"], data["progress"], data["error"]) == ("completed", 100, None)
    assert data["summary"]["key_points"]
    assert {name for name, file in data["files"].items() if file} == {"transcript", "audio", "report"}
    text = await service.get(f"{path}/files/transcript", KEY)
    assert await text.read() == await started.blob(blob_names.conversation_text(ACCOUNT, CONVERSATION))
    report = await service.get(f"{path}/files/report", KEY)
    assert await report.read() == await started.blob(blob_names.conversation_report(ACCOUNT, CONVERSATION))
    again = await service.client.post(POST, json=BODY, headers=KEY)
    assert (again.status, len(started.smtp.taken)) == (200, 1)


async def test_the_post_and_the_event_are_one_conversation(started, service):
    await service.client.post(POST, json=BODY, headers=KEY)
    started.request()
    await started.fleet.run(until=timedelta(hours=1))

    assert len(started.smtp.taken) == 1
    assert (await started.job()).run == 1


async def test_one_that_failed_goes_on_at_the_step_that_failed(started, service):
    conversation = started.elevenlabs.conversations.pop(CONVERSATION)
    answer = await (await service.client.post(POST, json=BODY, headers=KEY)).json()
    await started.fleet.run(until=timedelta(hours=1))
    _, data = await shown(service, answer)
    assert (data["status"], data["current_step"], data["error_code"]) == ("failed", "fetch", "not_found")
    assert data["what_to_do"]

    started.elevenlabs.conversations[CONVERSATION] = conversation
    again = await (await service.client.post(POST, json=BODY, headers=KEY)).json()
    await started.fleet.run(until=timedelta(hours=2))
    _, data = await shown(service, again)

    assert again["message"] == "The conversation goes on where it ended."
    assert data["status"] == "completed"
    assert len(started.smtp.taken) == 1


async def test_one_that_is_cancelled_before_its_mail_sends_none_until_it_is_asked_for_again(started, service):
    started.elevenlabs.conversations[CONVERSATION].before = ["in-progress"] * 3
    answer = await (await service.client.post(POST, json=BODY, headers=KEY)).json()
    await started.fleet.run(until=timedelta(seconds=1))
    path, data = await shown(service, answer)
    assert data["status"] == "extracting"
    assert (await service.client.delete(path, headers=KEY)).status == 200
    await started.fleet.run(until=timedelta(hours=1))
    _, data = await shown(service, answer)
    assert (data["status"], len(started.smtp.taken)) == ("cancelled", 0)

    await service.client.post(POST, json=BODY, headers=KEY)
    await started.fleet.run(until=timedelta(hours=2))
    _, data = await shown(service, answer)
    assert (data["status"], len(started.smtp.taken)) == ("completed", 1)
