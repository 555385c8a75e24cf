"""Hybrid search over the double of the index: what is found, where it is shown, and what is said of how it was made."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from agents.asr.rate_limit import ProviderLimiter
from agents.embeddings.maker import EmbeddingMaker
from agents.embeddings.scripted import ScriptedEmbedder
from agents.search.searcher import Searcher
from agents.text.chunks.tokens import spaced
from schemas.errors import ProviderError, SettingsError, Transient
from schemas.search.chunks import Utterance, packed
from schemas.search.results import OtherReading
from sinks.memory.database import MemoryDatabase
from sinks.memory.search.reads import MemorySearch
from sinks.ports.search.reads import ChunkFilter
from tests.contract.databases.searching import chunk, keep


def passage(*texts, number=0, first=0, **more):
    """A chunk of utterances of one word id a word."""
    utterances, at = [], first
    for text in texts:
        ids = [f"w{n}" for n in range(at, at + len(text.split()))]
        utterances.append(Utterance(text=text, speaker="A", start_ms=100 * at, end_ms=100 * at + 90, words=packed(ids)))
        at += len(ids)
    return chunk("\n".join(texts), number, utterances=[asdict(one) for one in utterances], **more)


CALL = (
    passage(
        "Hello.", "Where is my invoice?", "It was sent to Akmi.", heard="sent to Acme", alternatives=[[2, "w9", "Acme"]]
    ),
    passage("It was sent to Akmi.", "Then I wait for the parcel.", "Goodbye.", number=1, first=5),
)


class Searching:
    def __init__(self):
        self.database = MemoryDatabase()
        self.model = ScriptedEmbedder()
        self.searcher = Searcher(MemorySearch(self.database), self.open)

    def open(self, model):
        if model != self.model.model:
            raise SettingsError("no")
        return self.model

    async def embed(self):
        limiter = ProviderLimiter(self.database, "embeddings")
        maker = EmbeddingMaker(self.database, self.model.model, self.open, limiter)
        for _ in range(3):
            await maker.look()

    async def hits(self, text, **more):
        return (await self.searcher.search("t", text, **more)).hits


@pytest.fixture
async def searching():
    it = Searching()
    await keep(it.database, *CALL)
    yield it
    await it.searcher.close()


async def test_the_utterance_that_matches_is_shown_with_its_words_and_neighbours(searching):
    [hit] = await searching.hits("invoice")

    assert hit.utterance.text == "Where is my invoice?"
    assert hit.utterance.word_ids == ["w1", "w2", "w3", "w4"]
    assert (hit.utterance.start_ms, hit.utterance.end_ms) == (100, 190)
    assert [hit.utterance.text[slice(*place)] for place in hit.highlights] == ["invoice"]
    assert ([one.text for one in hit.before], [one.text for one in hit.after]) == (["Hello."], ["It was sent to Akmi."])
    assert hit.found_by == ("text",)


async def test_neighbours_come_from_the_passages_beside_without_what_these_repeat(searching):
    hit = next(hit for hit in await searching.hits("akmi", around=3) if hit.chunk.number == 0)

    assert [one.text for one in hit.before] == ["Hello.", "Where is my invoice?"]
    assert [one.text for one in hit.after] == ["Then I wait for the parcel.", "Goodbye."]
    assert (await searching.hits("invoice", around=0))[0].before == []


async def test_a_disputed_word_is_found_by_its_other_reading_alone(searching):
    [hit] = await searching.hits("acme")

    assert hit.utterance.text == "It was sent to Akmi."
    assert (hit.highlights, hit.readings) == ([], [OtherReading("w9", "Acme")])


async def test_without_a_model_it_is_said_that_words_alone_were_looked_for(searching):
    results = await searching.searcher.search("t", "invoice")

    assert (results.searched.by_text, results.searched.by_vectors) == (True, False)
    assert "no embedding model" in results.searched.reason
    searching.database.has_vectors = False
    assert "no pgvector" in (await searching.searcher.search("t", "invoice")).searched.reason


async def test_with_vectors_both_are_used_and_the_question_is_asked_once(searching):
    await searching.embed()
    asked = len(searching.model.asked)
    results = await searching.searcher.search("t", "parcel wait")
    only = await searching.searcher.search("t", "parcel wait", mode="vectors")

    assert (results.searched.by_vectors, results.searched.model, results.searched.reason) == (True, "letters", None)
    assert results.hits[0].found_by == ("text", "vectors")
    assert len(results.hits) == 2
    assert only.searched.by_text is False
    assert {hit.found_by for hit in only.hits} == {("vectors",)}
    assert len(searching.model.asked) == asked + 1


@pytest.mark.parametrize(
    ("trouble", "reason"), [(Transient("at 10.0.0.1"), "does not answer"), (ProviderError("bad key"), "refuses")]
)
async def test_a_model_that_fails_leaves_the_words_and_says_so(searching, trouble, reason):
    await searching.embed()
    searching.model.trouble = [trouble]
    results = await searching.searcher.search("t", "invoice")

    assert len(results.hits) == 1
    assert results.searched.reason == f"the embedding model {reason}"


async def test_phrases_are_looked_for_in_the_words_alone_and_that_is_said(searching):
    await searching.embed()
    results = await searching.searcher.search("t", '"my invoice"')

    assert [hit.utterance.text for hit in results.hits] == ["Where is my invoice?"]
    assert "phrases" in results.searched.reason


async def test_pages_follow_on_each_other(searching):
    await searching.embed()
    first = await searching.searcher.search("t", "parcel", limit=1)
    second = await searching.searcher.search("t", "parcel", limit=1, offset=first.following)

    assert (first.following, second.following) == (1, None)
    assert [hit.chunk.number for hit in first.hits + second.hits] == [1, 0]


async def test_what_was_deleted_meanwhile_is_left_out(searching, monkeypatch):
    async def nothing(*_):
        return {}

    monkeypatch.setattr(MemorySearch, "chunks", nothing)

    assert await searching.hits("invoice") == []


async def test_in_a_script_without_spaces_the_utterance_that_matches_is_shown_too(searching):
    texts = "こんにちは。", "明日 Acme の注文書を送ります。"
    await keep(searching.database, passage(*texts, job_id="k", content=spaced("\n".join(texts))))
    [hit] = await searching.hits("注文書", mode="text")
    marked = [hit.utterance.text[slice(*place)] for place in hit.highlights]

    assert (hit.utterance.text, marked) == (texts[1], ["注", "文", "書"])


async def test_of_a_passage_of_two_speakers_only_what_the_one_says_is_found():
    said = (("A", "Where is my parcel?"), ("B", "It was sent on Monday."))
    spoken = [
        Utterance(
            text=text, speaker=speaker, start_ms=n, end_ms=n + 1, words=packed([f"w{n}{k}" for k in range(4 + n)])
        )
        for n, (speaker, text) in enumerate(said)
    ]
    it = Searching()
    texts = "\n".join(text for _, text in said)
    await keep(it.database, chunk(texts, 0, utterances=[asdict(one) for one in spoken], speakers=["A", "B"]))

    [hit] = await it.hits("parcel", which=ChunkFilter(speaker="A"))
    assert hit.utterance.speaker == "A"
    assert await it.hits("parcel", which=ChunkFilter(speaker="B")) == []
    await it.searcher.close()
