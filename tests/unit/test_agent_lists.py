"""Looks at the lists of agents' conversations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agents.conversations.client import ElevenLabs
from agents.stages.uploads.asked import AskedConversations
from agents.stages.uploads.conversations import ConversationRequests
from agents.upkeep.agent_lists import OVERLAP_S, RETRY_S, AgentLists
from schemas.accounts.settings import AccountSettings
from schemas.conversations import names
from schemas.errors import Unavailable
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from tests.servers.elevenlabs import KEY, Scripted, elevenlabs_server

BEGIN = datetime(2026, 11, 30, 12, tzinfo=UTC)
AGENTS = {"agent_1": "zoe@example.com"}


class Looking:
    """A database, ElevenLabs, and what looks at its lists."""

    def __init__(self, server):
        self.server, self.at, self.database = server, BEGIN, MemoryDatabase()
        self.database.clock = lambda: self.at
        self.client = ElevenLabs(KEY, server.url, timeout_s=3)
        requests = ConversationRequests(Accounts(self.database, AccountSettings(), seconds=0))
        asked = AskedConversations(self.database, requests)
        self.lists = AgentLists(self.database, self.client, asked, 300)

    def call(self, id, minutes, **more):
        started = int((BEGIN + timedelta(minutes=minutes)).timestamp())
        self.server.conversations[id] = Scripted(started=started, **more)

    def begun(self):
        return [job.audio_uri.removeprefix("elevenlabs:") for job in self.database.all_jobs()]

    async def look(self, seconds=300):
        """Look once so many seconds have gone by; whether a look was due."""
        self.at += timedelta(seconds=seconds)
        return await self.lists.turn()


@pytest.fixture
async def looking():
    async with elevenlabs_server() as server:
        looking = Looking(server)
        await looking.database.save_account_settings("acme", AccountSettings(conversation_agents=AGENTS), 0, "me")
        yield looking
        await looking.client.close()


@pytest.mark.slow
async def test_calls_are_found_that_began_since_the_last_look(looking):
    looking.call("conv_before", -OVERLAP_S / 60 - 1)
    looking.call("conv_0", -1)
    looking.call("conv_other", 0, agent_id="agent_2")

    assert await looking.look(0)
    assert looking.begun() == ["conv_0"]
    assert not await looking.look(0), "the next is due in five minutes"
    looking.call("conv_1", 3)
    assert await looking.look()
    assert await looking.look()
    assert looking.begun() == ["conv_0", "conv_1"]
    [job, _] = looking.database.all_jobs()
    assert (job.tenant_id, job.options["mail_to"]) == ("acme", ["zoe@example.com"])
    assert {entry.author for entry, _ in looking.database.audit.values() if entry.job_id} == {"list of the agent"}


@pytest.mark.parametrize("verify", [True, None])
async def test_what_is_found_is_verified_if_the_account_says_so(looking, verify):
    settings = AccountSettings(conversation_agents=AGENTS, conversation_verify=verify)
    await looking.database.save_account_settings("acme", settings, 1, "me")
    looking.call("conv_1", 0)
    await looking.look(0)

    [job] = looking.database.all_jobs()
    assert job.options["verify"] is bool(verify)


async def test_a_call_that_goes_on_is_begun_and_one_that_failed_is_not(looking):
    looking.call("conv_1", 0, status="in-progress")
    looking.call("conv_2", 0, status="failed")
    await looking.look(0)

    assert looking.begun() == ["conv_1"]


async def test_a_list_of_several_pages_is_read_to_its_end(looking):
    looking.server.on_a_page = 2
    for number in range(5):
        looking.call(f"conv_{number}", number)
    await looking.look(600)

    assert sorted(looking.begun()) == [f"conv_{number}" for number in range(5)]


async def test_a_look_that_breaks_off_is_repeated_from_the_same_time(looking):
    await looking.look(0)
    looking.call("conv_1", 4)
    looking.server.misbehave("fail", 10, on=("list",))
    assert await looking.look()
    assert looking.begun() == []
    looking.server.misbehave("")
    assert not await looking.look(RETRY_S - 1)
    looking.at += timedelta(hours=3)
    assert await looking.look(1)

    assert looking.begun() == ["conv_1"], "it began before the last hour, and is not lost"


async def test_what_was_deleted_or_failed_is_not_begun_again(looking):
    looking.call("conv_1", 0)
    looking.call("conv_2", 0)
    await looking.look(0)
    await looking.database.begin_deletion(("acme", names.job_id("acme", "conv_1")), "somebody")
    await looking.look()

    assert looking.begun() == ["conv_2"]
    assert (await looking.database.job("acme", names.job_id("acme", "conv_2"))).run == 1


async def test_an_id_that_no_blob_could_have_keeps_no_other_waiting(looking):
    looking.call("conv/1", 0)
    looking.call("conv_2", 0)
    await looking.look(0)

    assert looking.begun() == ["conv_2"]


async def test_a_key_that_is_refused_is_told_and_tried_again_later(looking, caplog):
    looking.server.misbehave("key", 1, on=("list",))
    assert await looking.look(0)

    assert "ELEVENLABS_API_KEY" in caplog.text
    assert KEY not in caplog.text
    looking.call("conv_1", 0)
    assert await looking.look(RETRY_S)
    assert looking.begun() == ["conv_1"]


async def test_an_installation_that_cannot_process_conversations_for_a_time_loses_none(looking):
    lists, requests = looking.lists, looking.lists.conversations.requests
    lacking = replace(lists.conversations, requests=replace(requests, lacks=("No mail can be sent.",)))
    looking.lists = replace(lists, conversations=lacking)
    looking.call("conv_1", 0)
    await looking.look(0)
    assert looking.begun() == []
    looking.lists = lists
    await looking.look(7200)

    assert looking.begun() == ["conv_1"]


async def test_personal_data_are_hidden_if_the_account_says_so(looking):
    hiding = AccountSettings(conversation_agents=AGENTS, redact_pii=True, redact="forget")
    await looking.database.save_account_settings("acme", hiding, 1, "me")
    looking.call("conv_1", 0)
    await looking.look(0)

    [job] = looking.database.all_jobs()
    assert (job.is_redacted, job.options["redact"]) == (True, "forget")


async def test_our_own_database_is_waited_for(looking, monkeypatch):
    looking.call("conv_1", 0)

    async def away(*_, **__):
        raise Unavailable("PostgreSQL does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryDatabase, "commit", away)
        with pytest.raises(Unavailable):
            await looking.look(0)
    assert not await looking.look(60), "the claim has not lapsed"
    assert await looking.look(300)
    assert looking.begun() == ["conv_1"]


async def test_nothing_is_asked_where_no_account_has_agents(looking):
    await looking.database.save_account_settings("acme", AccountSettings(), 1, "me")

    assert not await looking.look(0)
    assert looking.server.calls == []
