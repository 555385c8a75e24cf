"""From an upload to a hit: the index of each transcript's newest version, with vectors, until the job is deleted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agents.asr.rate_limit import ProviderLimiter
from agents.corrections.editor import Editor
from agents.embeddings.maker import EmbeddingMaker
from agents.embeddings.scripted import ScriptedEmbedder
from agents.search.searcher import Searcher
from agents.stages.enrichments import index
from agents.upkeep.earlier_transcripts import begin_some
from schemas.accounts.settings import AccountSettings
from schemas.corrections.changes import TranscriptPatch
from schemas.events.job import JobReprocess
from sinks.accounts import Accounts
from sinks.fair_slots import FairSlots
from sinks.memory.reader import MemoryReader
from sinks.memory.search.reads import MemorySearch
from tests.fleet.conftest import JOB, FakeRecognizer


@pytest.fixture
async def scenario(make_scenario):
    """A fleet that indexes, with two recognizers that disagree about a name, and a maker of vectors."""
    return await fleet(make_scenario, ("index",))


async def fleet(make_scenario, kinds):
    recognizers = FakeRecognizer("a", "we spoke to Acme about it"), FakeRecognizer("b", "we spoke to Akmi about it")
    it = make_scenario(*recognizers, enrichments=kinds)
    it.database = it.fleet.database
    it.background = []
    accounts = Accounts(it.database, AccountSettings(), seconds=0)
    resources = SimpleNamespace(
        store=it.store,
        database=it.database,
        accounts=accounts,
        embed_in_background=lambda: it.background.append("embed"),
    )
    it.fleet.stages = [*it.fleet.stages, await index.SPEC.open(resources)]
    it.model = ScriptedEmbedder()
    limiter = ProviderLimiter(it.database, "embeddings")
    it.maker = EmbeddingMaker(it.database, "letters", lambda _: it.model, limiter)
    it.searcher = Searcher(MemorySearch(it.database), lambda _: it.model)
    it.reader = MemoryReader(it.database)
    it.editor = Editor(it.reader, it.store, it.database, FairSlots(4, 2))
    return it


async def indexed(scenario):
    await scenario.fleet.run()
    for _ in range(3):
        await scenario.maker.look()
    await scenario.fleet.run()


async def found(scenario, text, **more):
    return (await scenario.searcher.search("t", text, **more)).hits


async def test_a_transcript_is_found_by_both_readings_of_a_disputed_word_and_by_its_meaning(scenario):
    await scenario.upload()
    await indexed(scenario)
    [acme], [akmi] = [await found(scenario, name, mode="text") for name in ("acme", "akmi")]
    [meant] = await found(scenario, "who", mode="vectors")

    assert scenario.background == ["embed"]
    assert {hit.utterance.text for hit in (acme, akmi, meant)} == {acme.utterance.text}
    assert acme.start_ms == akmi.start_ms > acme.utterance.start_ms == meant.start_ms
    assert (len(acme.highlights), len(acme.readings)) != (len(akmi.highlights), len(akmi.readings))
    assert acme.utterance.word_ids == ["w0", "w1", "w2", "w3", "w4", "w5"]
    assert (await scenario.reader.job("t", JOB)).enrichment["index"].state == "done"
    [announced] = scenario.fleet.events("transcript.indexed")
    assert (announced["chunks"], announced["counted_by"]) == (1, "4 characters a token")
    [embedded] = scenario.fleet.events("embeddings.generated")
    assert (embedded["model"], embedded["dimensions"], embedded["job_id"]) == ("letters", 26, JOB)


async def test_an_edit_replaces_the_index_and_its_vectors(scenario):
    await scenario.upload()
    await indexed(scenario)
    transcript = await scenario.reader.transcript("t", JOB)
    change = {"op": "replace", "word": "w3", "text": "Zenith"}
    await scenario.editor.patch(transcript, TranscriptPatch.model_validate({"changes": [change]}), "key_1")
    await indexed(scenario)

    assert await found(scenario, "acme", mode="text") == await found(scenario, "akmi", mode="text") == []
    [hit] = await found(scenario, "zenith")
    assert hit.chunk.transcript_version == 2
    assert len(scenario.database.vectors) == 1
    assert [event["transcript_version"] for event in scenario.fleet.events("embeddings.generated")] == [1, 2]


async def test_a_new_run_replaces_the_one_before(scenario):
    await scenario.upload()
    await indexed(scenario)
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, headers=(("ce_type", b"job.reprocess"),))
    await indexed(scenario)

    assert {key[2] for key in scenario.database.chunks} == {key[2] for key in scenario.database.vectors} == {2}
    assert [event["run"] for event in scenario.fleet.events("embeddings.generated")] == [1, 2]


async def test_a_tenant_sets_the_size_of_passages(scenario):
    await scenario.database.save_account_settings("t", AccountSettings(chunk_tokens=50, chunk_least=50), 0, "me")
    for recognizer in scenario.recognizers.values():
        recognizer.text = " ".join(f"word{n}." for n in range(60))
    await scenario.upload()
    await scenario.fleet.run()

    assert len(scenario.database.chunks) > 3


async def test_of_a_deleted_job_nothing_is_found(scenario):
    await scenario.upload()
    await indexed(scenario)
    await scenario.database.begin_deletion(("t", JOB), "me")

    assert await found(scenario, "acme") == []
    assert (scenario.database.chunks, scenario.database.vectors, scenario.database.embedding) == ({}, {}, {})


async def test_transcripts_of_before_the_index_are_indexed_by_themselves(make_scenario):
    scenario = await fleet(make_scenario, ())
    await scenario.upload()
    await scenario.fleet.run()
    assert await found(scenario, "acme") == []

    assert await begin_some(scenario.database) == 1
    await indexed(scenario)
    assert len(await found(scenario, "acme")) == 1
    assert len(scenario.fleet.events("transcript.indexed")) == 1
    assert await begin_some(scenario.database) == 0
