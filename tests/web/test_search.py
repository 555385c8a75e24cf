"""`GET /search`: what it shows, of whose transcripts, and what it refuses."""

from __future__ import annotations

import json

import pytest

from agents.llm.texts.scripted import ScriptedTexts
from agents.search.ask import Asker
from agents.search.searcher import Searcher
from schemas.accounts.settings import AccountSettings
from schemas.errors import SettingsError
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from sinks.memory.search.reads import MemorySearch
from tests.contract.databases.searching import chunk, keep
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from web.connections.caller_limit import CallerLimit
from web.resources.search.ask import Ask
from web.resources.search.search import Search


def no_model(model):
    raise SettingsError(model)


def reply(prompt):
    passages = json.loads(prompt.content)["passages"]
    number = next((one["number"] for one in passages if "late" in one["text"]), 1)
    return {"is_answered": True, "claims": [{"text": "It is.", "passages": [number], "quote": "invoice is late"}]}


@pytest.fixture
async def worker():
    database = MemoryDatabase()
    searcher = Searcher(MemorySearch(database), no_model)
    asker = Asker(searcher, ScriptedTexts(reply), database, Accounts(database, AccountSettings()))
    resources = [Search(searcher), Ask(asker, CallerLimit("questions", 4))]
    async with Worker(database, resources=resources) as worker:
        await keep(database, chunk("the invoice is late", job_id="j", tenant="acme"))
        await keep(database, chunk("the invoice is paid", job_id="k", tenant="acme", start_ms=None, speakers=["B"]))
        await keep(database, chunk("the invoice of bolt", job_id="j", tenant="bolt"))
        yield worker


async def test_utterances_are_shown_with_their_moment(worker):
    page = await worker.json("/search?q=late+invoice&limit=1")
    [hit] = page["hits"]

    assert hit["job_id"] == "j"
    assert hit["utterance"] == {
        "text": "the invoice is late",
        "speaker": "A",
        "start_ms": 0,
        "end_ms": 900,
        "word_ids": ["w0", "w1", "w2", "w3"],
    }
    assert [hit["utterance"]["text"][one["begin"] : one["end"]] for one in hit["highlights"]] == ["invoice", "late"]
    # In a row of an earlier version: about where the word "invoice" is.
    assert hit["start_ms"] == 189
    links = {"audio": "/jobs/j/audio#t=0.189", "transcript": "/jobs/j/transcript", "job": "/jobs/j/status"}
    assert hit["links"] == links
    assert page["searched"]["vectors"] is False
    assert "no embedding model" in page["searched"]["reason"]


async def test_pages_are_linked_and_a_cursor_is_of_its_question(worker):
    first = await worker.get("/search?q=invoice&limit=1")
    page = await first.json()
    second = await worker.json(f"/search?q=invoice&limit=1&cursor={page['next']}")

    assert [hit["job_id"] for hit in page["hits"] + second["hits"]] in (["j", "k"], ["k", "j"])
    assert second["next"] is None
    assert f"cursor={page['next']}" in str(first.links["next"]["url"])
    other = await problem(await worker.get(f"/search?q=late&cursor={page['next']}"), 400)
    assert other["errors"][0]["parameter"] == "cursor"


async def test_filters_are_obeyed(worker):
    assert [hit["job_id"] for hit in (await worker.json("/search?q=invoice&speaker=B"))["hits"]] == ["k"]
    assert [hit["job_id"] for hit in (await worker.json("/search?q=invoice&job=j"))["hits"]] == ["j"]
    assert (await worker.json("/search?q=invoice&metadata=team:7&reference=x"))["hits"] == []
    assert (await worker.json("/search?q=invoice&entity=Acme"))["hits"] == []
    assert (await worker.json("/search?q=invoice&sentiment=mixed"))["hits"] == []


async def test_a_tenant_finds_its_own_and_an_operator_names_one(worker):
    theirs = await worker.json("/search?q=invoice", BOLT)
    named = await worker.json("/search?q=invoice&tenant=bolt", ROOT)

    assert [hit["utterance"]["text"] for hit in theirs["hits"]] == ["the invoice of bolt"]
    assert [hit["links"]["audio"] for hit in named["hits"]] == ["/jobs/j/audio?tenant=bolt#t=0.189"]
    assert (await problem(await worker.get("/search?q=invoice", ROOT), 400))["errors"][0]["parameter"] == "tenant"
    foreign = await problem(await worker.get("/search?q=invoice&tenant=acme", BOLT), 404)
    assert foreign == await problem(await worker.get("/search?q=invoice&tenant=nobody", BOLT), 404)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "q=",
        f"q={'x' * 501}",
        "q=a&mode=magic",
        "q=a&limit=51",
        "q=a&around=11",
        "q=a&cursor=x",
        "q=a&sentiment=furious",
        "q=a&emotion=b",
        "q=a%00b",
    ],
)
async def test_what_cannot_be_asked_is_refused(worker, query):
    await problem(await worker.get(f"/search?{query}"), 400)


async def test_too_many_words_are_refused(worker):
    await problem(await worker.get("/search?q=" + "+".join(f"w{n}" for n in range(40))), 400)


def events(text):
    """Names and data of server-sent events."""
    lines = [part.split("\n") for part in text.split("\n\n") if part]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]


async def asked(worker, path="/ask", headers=ACME, **body):
    return await worker.client.post(path, headers=headers, json={"question": "is the invoice late"} | body)


async def test_a_question_is_answered_in_events_that_cite_moments(worker):
    response = await asked(worker)
    (first, found), (second, claim), (last, end) = events(await response.text())

    assert (response.status, response.content_type) == (200, "text/event-stream")
    assert (first, second, last) == ("passages", "claim", "end")
    assert {passage["text"] for passage in found["passages"]} == {"the invoice is late", "the invoice is paid"}
    assert claim["is_supported"]
    [place] = claim["citations"]
    assert (place["job_id"], place["start_ms"], place["links"]["audio"]) == ("j", 189, "/jobs/j/audio#t=0.189")
    assert end == {"result": "answered", "model": "openai/scripted", "reason": None}


async def test_questions_are_of_the_callers_tenant_and_filters(worker):
    (_, found), *_ = events(await (await asked(worker, "/ask?speaker=B")).text())
    assert [passage["text"] for passage in found["passages"]] == ["the invoice is paid"]
    (_, theirs), *_ = events(await (await asked(worker, headers=BOLT)).text())
    assert [passage["text"] for passage in theirs["passages"]] == ["the invoice of bolt"]
    await problem(await asked(worker, "/ask?tenant=acme", BOLT), 404)
    await problem(await asked(worker, headers=ROOT), 400)


@pytest.mark.parametrize(
    "body",
    [
        {"question": ""},
        {"question": "x" * 1001},
        {"question": "a\x00"},
        {"earlier": [{"question": "a"}]},
        {"earlier": [{"question": "\x00", "answer": "b"}]},
        {"job": "j"},
    ],
)
async def test_what_is_no_question_is_refused(worker, body):
    await problem(await asked(worker, **body), 400)
