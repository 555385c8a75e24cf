"""ElevenLabs' post-call webhooks: signed as its own SDK checks, read within bounds, and no more than hints."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import jsonschema
import pytest
from elevenlabs.client import ElevenLabs
from elevenlabs.errors import BadRequestError
from pydantic import SecretStr

from agents.stages.uploads.asked import AskedConversations
from agents.stages.uploads.conversations import ConversationRequests
from schemas.accounts.settings import AccountSettings
from schemas.conversations import names
from schemas.webhooks.elevenlabs import AHEAD_S, OLD_S, sign
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from tests.web.service import Worker, problem
from web.resources.conversations import hints
from web.resources.conversations.hints import PATH, ConversationHints

SECRET = "wsec_of_nobody"
NOW = 1_790_000_000


def event(kind="post_call_transcription", **data):
    ids = {"agent_id": "agent_1", "conversation_id": "conv_1"}
    return {"type": kind, "event_timestamp": NOW, "data": ids | data}


class Service(Worker):
    """The service with two tenants, whose settings have agents."""

    def __init__(self, lacks=()):
        self.now = float(NOW)
        database = MemoryDatabase()
        asked = AskedConversations(
            database, ConversationRequests(Accounts(database, AccountSettings(), seconds=0), lacks)
        )
        resource = ConversationHints(asked, database, SecretStr(SECRET), lambda: self.now)
        super().__init__(database, resources=[resource])

    async def __aenter__(self):
        for tenant, agents in (("acme", {"agent_1": "a@example.com"}), ("bolt", {"agent_2": "b@example.com"})):
            settings = AccountSettings(conversation_agents=agents)
            await self.database.save_account_settings(tenant, settings, 0, "me")
        return await super().__aenter__()

    async def send(self, body, *, secret=SECRET, at=NOW, header=None, **more):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"ElevenLabs-Signature": sign(secret, body, at) if header is None else header}
        return await self.client.post(PATH, data=io.BytesIO(body), headers=headers, **more)

    async def sent(self, *args, **more):
        response = await self.send(*args, **more)
        assert response.status == 204, await response.text()

    async def begun(self):
        return sorted((job.tenant_id, job.audio_uri, *job.options["mail_to"]) for job in self.database.all_jobs())


@pytest.fixture
async def service():
    async with Service() as service:
        yield service


def test_our_signatures_are_those_of_the_official_sdk(monkeypatch):
    monkeypatch.setattr("elevenlabs.webhooks_custom.time.time", lambda: NOW)
    client, body = ElevenLabs(api_key="x"), json.dumps(event(text="Zoë"), ensure_ascii=False)

    read = client.webhooks.construct_event(rawBody=body, sig_header=sign(SECRET, body.encode(), NOW), secret=SECRET)

    assert read == json.loads(body)
    with pytest.raises(BadRequestError):
        client.webhooks.construct_event(rawBody=body + " ", sig_header=sign(SECRET, body.encode(), NOW), secret=SECRET)


async def test_a_webhook_begins_the_conversation_of_the_account_whose_agent_it_is(service):
    await service.sent(event())
    await service.sent(event(agent_id="agent_2", conversation_id="conv_2"))
    await service.sent(event(agent_id="agent_3", conversation_id="conv_3"))
    await service.sent(event())

    assert await service.begun() == [
        ("acme", "elevenlabs:conv_1", "a@example.com"),
        ("bolt", "elevenlabs:conv_2", "b@example.com"),
    ]


async def test_it_is_verified_if_the_account_says_so(service):
    settings = AccountSettings(conversation_agents={"agent_1": "a@example.com"}, conversation_verify=True)
    await service.database.save_account_settings("acme", settings, 1, "me")
    await service.sent(event())
    await service.sent(event(agent_id="agent_2", conversation_id="conv_2"))

    assert {job.tenant_id: job.options["verify"] for job in service.database.all_jobs()} == {
        "acme": True,
        "bolt": False,
    }


async def test_nothing_of_the_body_is_trusted_but_the_ids(service):
    """Neither an account, nor an address, nor a transcript."""
    more = {"account_id": "bolt", "email_id": "thief@example.com", "transcript": [{"role": "agent", "message": "x"}]}
    await service.sent(event(**more, status="failed") | {"account_id": "bolt", "conversation_id": "conv_9"})

    assert await service.begun() == [("acme", "elevenlabs:conv_1", "a@example.com")]


@pytest.mark.parametrize("kind", ["post_call_audio", "post_call_transcription", "call_initiation_failure", "later"])
async def test_only_ended_calls_are_fetched(service, kind):
    await service.sent(event(kind))

    assert len(await service.begun()) == kind.startswith("post_call")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"secret": "another"}, "does not match"),
        ({"at": NOW - OLD_S - 1}, "another time"),
        ({"at": NOW + AHEAD_S + 1}, "another time"),
        ({"header": ""}, "must be"),
        ({"header": f"t={NOW}"}, "must be"),
        ({"header": f"t={NOW},t={NOW},v0=00"}, "must be"),
        ({"header": f"t={NOW},v0=00"}, "does not match"),
        ({"header": f"t={NOW},v1=00"}, "must be"),
        ({"header": f"t=-{NOW},v0=00"}, "must be"),
        ({"header": "t=9" + "9" * 900 + ",v0=00"}, "must be"),
        ({"header": f"t={NOW},v0=\u00e9"}, "must be"),
        ({"header": sign(SECRET, b"other", NOW)}, "does not match"),
    ],
)
async def test_what_is_not_signed_now_by_the_secret_is_refused(service, more, said):
    document = await problem(await service.send(event(), **more), 401)

    assert said in document["detail"]
    assert await service.begun() == []


async def test_a_replay_is_accepted_for_a_time_and_does_nothing(service):
    await service.sent(event())
    service.now += OLD_S - 1
    await service.sent(event())
    service.now += 2
    await problem(await service.send(event()), 401)

    assert len(await service.begun()) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"type": 1}', b'{"data": {}}', b"\xff\xfe", b"[" * 10_000]
)
async def test_a_signed_body_that_is_no_event_is_refused(service, body):
    await problem(await service.send(body), 400)


@pytest.mark.parametrize("data", [{"agent_id": "a/b"}, {"conversation_id": "../x"}, {"conversation_id": 7}])
async def test_ids_are_checked(service, data):
    await problem(await service.send(event(**data)), 400)


@pytest.mark.parametrize(
    "body",
    [
        event(),
        event("post_call_audio", full_audio="AA=="),
        event("call_initiation_failure"),
        {"type": "later"},
        {},
        {"type": 1},
        {"type": "post_call_audio"},
        {"type": "post_call_audio", "data": {"agent_id": "agent_1"}},
        event(agent_id="a/b"),
        event(conversation_id="../x"),
        [],
    ],
)
async def test_the_document_says_which_bodies_are_accepted(service, body):
    operation = (await service.json("/openapi.json"))["paths"][PATH]["post"]
    schema = jsonschema.Draft202012Validator(operation["requestBody"]["content"]["application/json"]["schema"])

    assert schema.is_valid(body) == ((await service.send(body)).status == 204)


async def test_a_recording_of_megabytes_is_read_within_bounds(service):
    """Only the beginning of a body is kept; all of it is signed."""
    audio = base64.b64encode(bytes(12 << 20)).decode()
    await service.sent(event("post_call_audio", full_audio=audio))
    assert len(await service.begun()) == 1

    body = json.dumps(event("post_call_audio", conversation_id="conv_2", full_audio=audio)).encode()
    header = sign(SECRET, body, NOW)
    await problem(await service.send(body[:-3] + b'A"}', header=header), 401)
    assert len(await service.begun()) == 1


async def test_ids_behind_the_beginning_are_left_to_the_list(service):
    await service.sent({"type": "post_call_audio", "data": {"full_audio": "A" * hints.KEPT_BYTES} | event()["data"]})

    assert await service.begun() == []


async def test_ids_in_the_text_of_a_call_are_not_taken_for_those_of_the_call(service):
    said = '", "data": {"agent_id": "agent_2", "conversation_id": "conv_9"}, "x": "'
    await service.sent(event(transcript=[{"message": said}]))

    assert await service.begun() == [("acme", "elevenlabs:conv_1", "a@example.com")]


async def test_a_body_that_never_ends_and_one_that_never_comes_are_cut_off(service, monkeypatch):
    monkeypatch.setattr(hints, "MAX_BYTES", 1 << 18)
    monkeypatch.setattr(hints, "READ_S", 0.2)

    async def endless():
        while True:
            yield bytes(1 << 16)

    async def slow():
        yield b"{"
        await asyncio.sleep(60)

    headers = {"ElevenLabs-Signature": sign(SECRET, b"", NOW)}
    statuses = []
    for body in (endless(), slow()):
        try:
            response = await service.client.post(PATH, data=body, headers=headers)
            statuses.append(response.status)
        except OSError:  # the connection is closed while the body is still being sent
            statuses.append(413)
    assert statuses == [413, 408]


async def test_what_was_deleted_or_cancelled_is_not_begun_again(service):
    await service.sent(event())
    job_id = names.job_id("acme", "conv_1")
    await service.database.begin_deletion(("acme", job_id), "somebody")

    await service.sent(event())

    assert await service.begun() == []


async def test_elevenlabs_gets_no_error_for_what_this_installation_lacks():
    """It switches webhooks off that answer with errors."""
    async with Service(lacks=("SMTP_HOST is missing.",)) as service:
        await service.sent(event())
        assert await service.begun() == []
