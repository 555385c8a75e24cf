"""What follows from edits in a fleet: documents are made again, each of the newest version, and announced once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agents.corrections.editor import Editor
from agents.stages.enrichments import document
from schemas.corrections.changes import TranscriptPatch
from schemas.errors import Transient
from schemas.events.job import JobReprocess
from sinks.fair_slots import FairSlots
from sinks.memory.reader import MemoryReader
from sinks.ports.corrections.review import ReviewFilter
from tests.fleet.conftest import JOB, FakeRecognizer, enriching
from tests.fleet.test_enrichment import Troubled


@pytest.fixture
async def scenario(make_scenario):
    """A fleet that makes documents, with two recognizers that disagree, and an editor."""
    recognizers = FakeRecognizer("a", "hello there world"), FakeRecognizer("b", "hello their world")
    it = make_scenario(*recognizers, enrichments=("document",))
    it.documents = Troubled(it.store)
    it.fleet.stages = [
        *it.fleet.stages,
        await document.SPEC.open(enriching(it.documents, it.fleet.database)),
    ]
    it.reader = MemoryReader(it.fleet.database)
    it.editor = Editor(it.reader, it.store, it.fleet.database, FairSlots(4, 2))
    return it


async def written(scenario, *changes):
    patch = TranscriptPatch.model_validate({"changes": list(changes)})
    return await scenario.editor.patch(await scenario.reader.transcript("t", JOB), patch, "key_1")


def put(text, word="w1"):
    return {"op": "replace", "word": word, "text": text}


async def text_of(scenario, event):
    return (await scenario.store.get(event["document_uri"])).decode().partition("## Transcript")[2]


async def test_a_choice_in_the_queue_changes_transcript_document_and_events(scenario):
    await scenario.upload(reference="call 1")
    await scenario.fleet.run()
    [item] = await scenario.reader.review_items("t", ReviewFilter(), 9)
    other = next(n for n, reading in enumerate(item.readings) if n)
    await scenario.editor.choose(await scenario.reader.transcript("t", JOB), item, other, "key_1")
    await scenario.fleet.run()

    chosen = f"hello {item.readings[other]['text']} world"
    assert (await scenario.reader.transcript("t", JOB)).text == chosen
    [edited] = scenario.fleet.events("transcript.edited")
    assert (edited["version"], edited["reference"], edited["changed_words"]) == (2, "call 1", 1)
    first, second = scenario.fleet.events("document.generated")
    assert (first.get("transcript_version"), second["transcript_version"]) == (1, 2)
    assert chosen in await text_of(scenario, second)
    assert f"hello {item.readings[0]['text']} world" in await text_of(scenario, first)
    status = scenario.fleet.status("t", JOB)
    assert (status.status, status.transcript_version) == ("completed", 2)
    assert (status.enrichment["document"].state, status.enrichment["document"].transcript_version) == ("done", 2)
    assert scenario.terminal() == [("persisted", "call 1", 1)]


async def test_edits_in_quick_succession_end_with_a_document_of_the_last(scenario):
    await scenario.upload()
    await scenario.fleet.run()
    for text in ("one", "two", "three"):
        await written(scenario, put(text))
    await scenario.fleet.run()

    assert [event["version"] for event in scenario.fleet.events("transcript.edited")] == [2, 3, 4]
    events = scenario.fleet.events("document.generated")
    assert events[-1]["transcript_version"] == 4
    assert "hello three world" in await text_of(scenario, events[-1])
    assert scenario.fleet.status("t", JOB).enrichment["document"].transcript_version == 4


async def test_an_edit_before_the_first_document_is_made_is_in_the_document(scenario):
    scenario.documents.trouble = [Transient("away", retry_after=50)]
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=20))
    await written(scenario, put("edited"))
    await scenario.fleet.run()

    events = scenario.fleet.events("document.generated")
    assert [event["transcript_version"] for event in events] == [2]
    assert "hello edited world" in await text_of(scenario, events[0])


async def test_an_edit_while_a_document_is_made_has_it_made_again(scenario):
    class Slow:
        """Edits the transcript between the reading of one version and the writing of its document."""

        def __init__(self, store):
            self._store, self.edits = store, 1

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def put(self, name, *args, **more):
            if name.endswith("document.md") and self.edits:
                self.edits -= 1
                await written(scenario, put("meanwhile"))
            return await self._store.put(name, *args, **more)

    slow = enriching(Slow(scenario.store), scenario.fleet.database)
    scenario.fleet.stages = [*scenario.fleet.stages[:-1], await document.SPEC.open(slow)]
    await scenario.upload()
    await scenario.fleet.run()

    events = scenario.fleet.events("document.generated")
    assert [event["transcript_version"] for event in events] == [2]
    assert "hello meanwhile world" in await text_of(scenario, events[0])


async def test_a_document_that_failed_is_made_again_after_an_edit(scenario):
    scenario.documents.trouble = [ValueError("a fault of ours")] * 9
    await scenario.upload()
    await scenario.fleet.run()
    assert scenario.fleet.status("t", JOB).enrichment["document"].state == "failed"
    scenario.documents.trouble.clear()
    await written(scenario, put("edited"))
    await scenario.fleet.run()

    assert [event["transcript_version"] for event in scenario.fleet.events("document.generated")] == [2]
    status = scenario.fleet.status("t", JOB).enrichment["document"]
    assert (status.state, status.error) == ("done", None)


async def test_what_is_delivered_again_makes_nothing_again(scenario):
    await scenario.upload()
    await scenario.fleet.run()
    await written(scenario, put("edited"))
    await scenario.fleet.run()
    for record in [*scenario.fleet.log["transcript.edited"], *scenario.fleet.log["persisted"]]:
        scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    assert len(scenario.fleet.events("document.generated")) == 2


async def test_a_new_run_begins_with_its_own_words_and_queue(scenario):
    await scenario.upload()
    await scenario.fleet.run()
    await written(scenario, put("edited"))
    scenario.fleet.publish(
        "intake.due", JobReprocess(tenant_id="t", job_id=JOB, run=2), headers=(("ce_type", b"job.reprocess"),)
    )
    await scenario.fleet.run()

    now = await scenario.reader.transcript("t", JOB)
    assert (now.run, now.version, "edited" in now.text) == (2, 1, False)
    assert (await scenario.reader.transcript("t", JOB, 1)).text == "hello edited world"
    assert [item.run for item in await scenario.reader.review_items("t", ReviewFilter(), 9)] == [2]
    assert scenario.fleet.status("t", JOB).transcript_version == 1
