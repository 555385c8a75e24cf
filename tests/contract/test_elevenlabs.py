"""The client of ElevenLabs, with the vendor's unmodified SDK, against a local server that misbehaves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from agents.conversations.client import ElevenLabs
from schemas.errors import (
    NotAccepted,
    ProviderError,
    RateLimited,
    SettingsError,
    TooLarge,
    Transient,
    UnknownConversation,
)
from tests.servers.elevenlabs import KEY, PAUSE_S, Scripted, elevenlabs_server

ID = "conv_1"


@pytest.fixture
async def server():
    async with elevenlabs_server() as it:
        it.conversations[ID] = Scripted(audio=b"ID3" + bytes(300_000))
        yield it


@pytest.fixture
async def client(server):
    it = ElevenLabs(KEY, server.url, timeout_s=2.0)
    yield it
    await it.close()


async def test_a_conversation_is_read(client, server):
    it = await client.conversation(ID)

    assert (it.state, it.status, it.has_audio, it.duration_ms, it.language) == ("done", "done", True, 16_000, "en")
    assert [(turn.is_agent, turn.start_ms) for turn in it.turns] == [
        (True, 0),
        (False, 4000),
        (True, 8000),
        (False, 12000),
    ]
    assert it.turns[1].text == "I would like to move my appointment on Tuesday."
    assert server.headers["xi-api-key"] == KEY


async def test_an_answer_of_any_length_is_read_in_part_only(client, server, monkeypatch):
    monkeypatch.setattr("agents.conversations.client.MAX_ANSWER_BYTES", 10_000)
    assert (await client.conversation(ID)).state == "done"
    server.conversations[ID].turns = [{"role": "user", "message": "x" * 20_000, "time_in_call_secs": 0}]

    with pytest.raises(ProviderError, match="at most 10000 bytes"):
        await client.conversation(ID)
    server.conversations[ID].turns = []
    assert (await client.conversation(ID)).state == "done"


async def test_a_turn_that_is_cut_is_noted(client, server):
    long = {"role": "user", "message": "word " * 30_000, "time_in_call_secs": 0}
    server.conversations[ID].turns = [long, {"role": "agent", "message": "Short.", "time_in_call_secs": 9}]

    it = await client.conversation(ID)

    assert [len(turn.text) <= 100_000 for turn in it.turns] == [True, True]
    assert it.notes == ("In 1 turn of the conversation, only the first 100,000 characters are read.",)


@pytest.mark.parametrize("status", ["initiated", "in-progress", "processing", "a status of next year"])
async def test_a_conversation_that_is_not_done_is_open(client, server, status):
    server.conversations[ID].before = [status]

    assert (await client.conversation(ID)).state == "open"
    assert (await client.conversation(ID)).state == "done"


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("absent", UnknownConversation),
        ("key", ProviderError),
        ("forbidden", ProviderError),
        ("rate", RateLimited),
        ("fail", NotAccepted),
        ("error", Transient),
        ("cut", Transient),
        ("lose", Transient),
        ("garble", Transient),
        ("mangle", Transient),
        ("stall", Transient),
        ("echo_key", Transient),
    ],
)
async def test_each_failure_is_one_of_ours_and_is_not_repeated(client, server, mode, error):
    server.misbehave(mode)
    with pytest.raises(error) as raised:
        await client.conversation(ID)

    assert type(raised.value) is error
    assert KEY not in str(raised.value)
    assert server.count("get") == 1
    if mode == "rate":
        assert raised.value.retry_after == PAUSE_S
    server.misbehave()
    assert (await client.conversation(ID)).state == "done"


async def test_a_server_that_is_away_has_accepted_nothing():
    client = ElevenLabs(KEY, "http://127.0.0.1:1")
    with pytest.raises(NotAccepted, match=r"127\.0\.0\.1:1"):
        await client.conversation(ID)
    await client.close()


@pytest.mark.parametrize(
    ("fields", "turns"),
    [
        ({"transcript": ..., "metadata": ..., "has_audio": ...}, 0),
        ({"transcript": None, "metadata": None, "has_audio": "yes"}, 0),
        ({"transcript": [None, 7, "x", {}, {"role": 1, "message": ["a"]}, {"message": "there"}]}, 1),
        ({"transcript": {"role": "agent"}, "metadata": {"call_duration_secs": "long", "main_language": "a/b"}}, 0),
        ({"transcript": [{"role": "agent", "message": "hi", "time_in_call_secs": 1e300}]}, 1),
        ({"transcript": [{"role": "agent", "message": "a\x00b\ud83d c", "time_in_call_secs": -5}]}, 1),
    ],
)
async def test_missing_and_hostile_fields_cost_what_they_are(client, server, fields, turns):
    server.conversations[ID].fields = fields
    it = await client.conversation(ID)

    assert (it.state, len(it.turns)) == ("done", turns)
    assert it.has_audio == ("has_audio" not in fields)
    assert all(turn.start_ms is None for turn in it.turns)


async def test_a_recording_is_streamed_into_a_file(client, server, tmp_path):
    assert await client.save_audio(ID, tmp_path / "a.mp3", 1 << 20)
    assert (tmp_path / "a.mp3").read_bytes() == server.conversations[ID].audio


async def test_a_conversation_may_have_no_recording(client, server, tmp_path):
    server.conversations[ID].audio = None

    assert not await client.save_audio(ID, tmp_path / "a.mp3", 1 << 20)


async def test_a_recording_that_is_too_large_is_not_read_to_its_end(client, server, tmp_path):
    server.conversations[ID].audio = bytes(20 << 20)
    with pytest.raises(TooLarge, match="more than 1 MB"):
        await client.save_audio(ID, tmp_path / "a.mp3", 1 << 20)

    assert (tmp_path / "a.mp3").stat().st_size <= 1 << 20


async def test_a_stream_that_is_cut_is_told_and_not_taken_for_the_whole(client, server, tmp_path):
    server.conversations[ID].cut_audio = 1
    with pytest.raises(Transient, match="broke off"):
        await client.save_audio(ID, tmp_path / "a.mp3", 1 << 20)

    assert await client.save_audio(ID, tmp_path / "a.mp3", 1 << 20)


async def test_an_agents_conversations_are_listed_page_by_page(client, server):
    server.on_a_page = 3
    began = 1_790_000_000
    server.conversations |= {f"c{n}": Scripted(agent_id="a2", started=began + n) for n in range(8)}
    since = datetime.fromtimestamp(began + 1, UTC)

    assert [one.conversation_id async for one in client.listed("a2", since)] == [f"c{n}" for n in range(7, 0, -1)]
    assert server.count("list") == 3


class Pacing:
    """A rate that notes what is reported."""

    def __init__(self):
        self.told = []

    async def wait(self):
        self.told.append("wait")

    async def failed(self, exc):
        self.told.append(exc.retry_after)

    async def worked(self):
        self.told.append("worked")


async def test_each_call_waits_for_its_turn_and_reports_how_it_went(server, tmp_path):
    pacing = Pacing()
    client = ElevenLabs(KEY, server.url, timeout_s=2.0, rate=pacing)
    await client.conversation(ID)
    await client.save_audio(ID, tmp_path / "a.mp3", 1 << 20)
    assert [one async for one in client.listed("agent_1", datetime.fromtimestamp(0, UTC))]
    with pytest.raises(UnknownConversation):
        await client.conversation("conv_unknown")
    assert pacing.told == ["wait", "worked"] * 4
    pacing.told.clear()
    server.misbehave("rate")
    with pytest.raises(RateLimited):
        await client.conversation(ID)
    await client.close()

    assert pacing.told == ["wait", PAUSE_S]


async def test_a_key_that_no_header_can_have_is_refused():
    with pytest.raises(SettingsError):
        ElevenLabs("two words")


async def test_doctors_question_is_answered(client, server):
    await client.check()
    server.misbehave("key")
    with pytest.raises(ProviderError, match="ELEVENLABS_API_KEY"):
        await client.check()


async def test_cancelling_is_no_error(client, server):
    server.misbehave("stall")
    task = asyncio.create_task(client.conversation(ID))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
