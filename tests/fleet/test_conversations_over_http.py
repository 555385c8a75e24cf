"""A conversation from the POST to the mail: HTTP interface and stages on one database, with a local ElevenLabs."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import orjson
import pytest
from pydantic import SecretStr

from agents.conversations.client import ElevenLabs
from agents.stages.uploads.asked import AskedConversations
from agents.stages.uploads.conversations import ConversationRequests
from agents.upkeep.agent_lists import AgentLists
from schemas import blob_names
from schemas.accounts.settings import AccountSettings
from schemas.errors import ConcordError
from schemas.webhooks.elevenlabs import sign
from sinks.accounts import Accounts
from sinks.memory.reader import MemoryReader
from tests.fleet.conftest import FakeRecognizer, ProbeHere
from tests.fleet.conversations import ACCOUNT, ANN, CONVERSATION, calls, mp3
from tests.servers.elevenlabs import KEY as ELEVENLABS_KEY
from tests.servers.elevenlabs import Scripted, elevenlabs_server
from tests.servers.smtp import smtp_server
from tests.web.service import Worker
from tests.web.walk import conversation_resources
from web.resources.conversations.hints import ConversationHints

KEY = {"X-API-Key": "t-key"}
SECRET, NOW = "wsec_of_nobody", 1_790_000_000
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
    asked = AskedConversations(database, ConversationRequests(accounts))
    hints = ConversationHints(asked, database, SecretStr(SECRET), lambda: NOW)
    resources = [*conversation_resources(database, accounts, reader, started.store), hints]
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


async def test_however_it_is_asked_for_and_found_it_is_one_conversation_and_one_mail(started, service):
    database = started.fleet.database
    begun = await database.now()
    started.elevenlabs.conversations[CONVERSATION].started = int(begun.timestamp())
    settings = AccountSettings(conversation_agents={"agent_1": ANN})
    await database.save_account_settings(ACCOUNT, settings, 0, "operator")
    asked = AskedConversations(database, ConversationRequests(Accounts(database, AccountSettings(), seconds=0)))
    lists = AgentLists(database, ElevenLabs(ELEVENLABS_KEY, started.elevenlabs.url, timeout_s=3), asked, 300)
    event = {"type": "post_call_transcription", "data": {"agent_id": "agent_1", "conversation_id": CONVERSATION}}
    body = orjson.dumps(event)

    for _ in range(2):
        headers = {"ElevenLabs-Signature": sign(SECRET, body, NOW)}
        assert (await service.client.post("/webhooks/elevenlabs", data=body, headers=headers)).status == 204
        await lists.turn()
        started.request()
        assert (await service.client.post(POST, json=BODY, headers=KEY)).status in (200, 202)
        await started.fleet.run(until=timedelta(hours=1))
    await lists.client.close()

    assert [(call, id) for call, id in started.elevenlabs.calls if call == "list"] == [("list", "agent_1")]
    assert (len(started.smtp.taken), (await started.job()).run) == (1, 1)
    author = next(entry.author for entry, _ in database.audit.values() if entry.job_id)
    assert author == "webhook of ElevenLabs"


async def test_one_that_is_cancelled_behind_its_run_is_mailed_when_it_goes_on(started, service):
    answer = await (await service.client.post(POST, json=BODY, headers=KEY)).json()
    while not (await started.job()).ended:
        with contextlib.suppress(ConcordError):  # there are more events
            await started.fleet.run(steps=1)
    path, data = await shown(service, answer)
    assert data["status"] == "summarizing"
    assert (await service.client.delete(path, headers=KEY)).status == 200
    await started.fleet.run(until=timedelta(hours=1))
    _, data = await shown(service, answer)
    assert (data["status"], data["error_code"], len(started.smtp.taken)) == ("cancelled", "cancelled", 0)

    await service.client.post(POST, json=BODY, headers=KEY)
    await started.fleet.run(until=timedelta(hours=2))
    _, data = await shown(service, answer)
    assert (data["status"], len(started.smtp.taken)) == ("completed", 1)
    assert started.elevenlabs.count("get") == 1, "what is stored is not fetched again"


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


async def test_the_conversation_of_an_agent_that_is_anothers_is_unknown(started, service):
    """Whoever has come by an id gets no call of another account by it."""
    database = started.fleet.database
    agents = AccountSettings(conversation_agents={"agent_1": "bob@example.com"})
    await database.save_account_settings("other", agents, 0, "operator")
    answer = await (await service.client.post(POST, json=BODY, headers=KEY)).json()
    await started.fleet.run(until=timedelta(hours=1))
    _, data = await shown(service, answer)

    assert (data["status"], data["error_code"]) == ("failed", "not_found")
    assert data["error"] == "there is no such conversation of this account"
    assert [uri async for uri in started.store.list(f"{ACCOUNT}/")] == []

    await database.save_account_settings(ACCOUNT, agents, 0, "operator")
    await service.client.post(POST, json=BODY, headers=KEY)
    await started.fleet.run(until=timedelta(hours=2))
    _, data = await shown(service, answer)
    assert data["status"] == "completed"
