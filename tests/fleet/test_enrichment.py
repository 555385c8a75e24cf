"""What is made of a transcript after its run has completed: once, retried, and without touching the run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from agents.stages.enrichments import document
from agents.upkeep.stuck_jobs import TRIES
from agents.upkeep.sweeper import Sweeper
from schemas import blob_names
from schemas.errors import InvalidInput, Transient, Unavailable
from schemas.events.job import JobReprocess
from tests.fleet.conftest import J, Speaker
from tests.fleet.test_sweeper import Commits, ReadAll


class Troubled:
    """The document stage's store: raises what it is given when a document is written, then works."""

    def __init__(self, store):
        self._store = store
        self.trouble = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def put(self, name, *args, **more):
        if self.trouble and (error := self.trouble.pop(0)) is not None:
            raise error
        return await self._store.put(name, *args, **more)


@pytest.fixture
async def told(story):
    """A fleet that makes documents."""
    it = story(Speaker("a"), Speaker("b"), enrichments=("document",))
    it.documents = Troubled(it.store)
    stage = await document.SPEC.open(SimpleNamespace(store=it.documents, database=it.fleet.database))
    it.fleet.stages = [*it.fleet.stages, stage]
    return it


def status(told):
    return told.fleet.status("t", J)


async def row(told, run=1):
    return told.fleet.database.enrichments["t", J, run, "document"]


async def test_a_document_is_made_of_a_transcript_and_announced_once(told):
    await told.upload(metadata={"title": "A *bold* call | <b>", "agent": "Ann"})
    await told.fleet.run()

    [event] = told.fleet.events("document.generated")
    text = (await told.store.get(event["document_uri"])).decode()
    assert text.startswith("# A \\*bold\\* call \\| \\<b\\>\n")
    assert "| agent | Ann |" in text
    assert "hello there world" in text
    assert event["document_uri"] == told.store.uri(blob_names.document("t", J, 1))
    assert (event["kind"], event["status"], event["version"]) == ("document", "done", "transcript/1")
    stored = await row(told)
    assert (stored.state, stored.attempts, stored.result["document_uri"]) == ("done", 1, event["document_uri"])
    assert status(told).enrichment["document"].state == "done"
    assert ("t", J, 1, "document") in told.fleet.database.files


async def test_the_run_is_completed_before_and_is_not_changed(told):
    told.documents.trouble = [Transient("away", retry_after=50)]
    await told.upload()
    await told.fleet.run(until=timedelta(seconds=20))
    before = status(told)
    assert before.status == "completed"
    assert before.enrichment["document"].state == "retrying"

    await told.fleet.run()

    after = status(told)
    assert after.enrichment["document"].state == "done"
    assert after.version > before.version
    same = {"status", "run", "steps", "completed_at", "reason", "code", "progress"}
    assert after.model_dump(include=same) == before.model_dump(include=same)
    assert told.terminal() == [("persisted", J, 1)]


async def test_what_is_delivered_again_makes_nothing_again(told):
    await told.upload()
    await told.fleet.run()
    for record in [*told.fleet.log["persisted"], *told.fleet.log["document.due"]]:
        told.fleet.deliver_again(record)
    await told.fleet.run()

    assert len(told.fleet.events("document.generated")) == 1


@pytest.mark.parametrize("error", [InvalidInput("no such thing"), ValueError("a fault of ours")])
async def test_one_that_cannot_be_made_fails_with_a_letter_and_the_run_stays(told, error):
    told.documents.trouble = [error] * 9
    await told.upload()
    await told.fleet.run()

    [event] = told.fleet.events("enrichment.failed")
    assert (event["kind"], event["run"]) == ("document", 1)
    assert event["code"]
    [letter] = told.fleet.log["persisted.dlq"]
    assert letter.header("dlq-stage") == "document"
    assert status(told).status == "completed"
    assert (status(told).enrichment["document"].state, (await row(told)).state) == ("failed", "failed")
    assert told.terminal() == [("persisted", J, 1)]


async def test_a_letter_that_is_put_back_makes_it_after_all(told):
    told.documents.trouble = [InvalidInput("no such thing")]
    await told.upload()
    await told.fleet.run()
    [letter] = told.fleet.log["persisted.dlq"]

    headers = tuple((name, value) for name, value in letter.headers if not name.startswith("dlq-"))
    told.fleet.publish("document.due", letter.value, letter.key, (*headers, ("ce_replay", b"1")))
    await told.fleet.run()

    assert len(told.fleet.events("document.generated")) == 1
    assert status(told).enrichment["document"].state == "done"


async def test_our_own_store_away_is_no_try(told):
    told.documents.trouble = [Unavailable("away")] * 5
    await told.upload()
    await told.fleet.run()

    assert (await row(told)).attempts == 1
    assert status(told).enrichment["document"].state == "done"


async def test_the_next_run_leaves_an_open_one_behind_and_makes_its_own(told):
    told.documents.trouble = [Transient("away", retry_after=3000)]
    await told.upload()
    await told.fleet.run(until=timedelta(seconds=60))
    told.fleet.publish(
        "intake.due", JobReprocess(tenant_id="t", job_id=J, run=2), headers=(("ce_type", b"job.reprocess"),)
    )
    await told.fleet.run()

    assert [event["run"] for event in told.fleet.events("document.generated")] == [2]
    assert ((await row(told)).state, (await row(told)).code) == ("failed", "superseded")
    assert (await row(told, 2)).state == "done"
    assert status(told).run == 2


async def test_nothing_is_made_where_the_upload_says_so_or_the_run_has_failed(told):
    await told.upload(options={"enrich": False})
    told.speakers["a"].trouble = told.speakers["b"].trouble = []
    await told.fleet.run()

    assert status(told).status == "completed"
    assert status(told).enrichment == {}
    assert told.fleet.events("document.generated") == []


async def test_one_whose_event_is_lost_is_asked_for_again_and_fails_in_the_end(told):
    told.documents.trouble = [Transient("away")] * 99
    await told.upload()
    await told.fleet.run(until=timedelta(seconds=1))
    database, clock = told.fleet.database, told.fleet.clock
    database.outbox.clear()
    sweeper = Sweeper(
        database, database, Commits(database), told.store, ReadAll(), ("a", "b"), 3600.0, enrichments=("document",)
    )
    for _ in range(2 * TRIES):  # each second look revives what has stood still since the first
        clock.advance(300)
        await sweeper.look()
        asked = [message for _, message in database.outbox if message.topic == "document.due"]
        database.outbox = [(due, m) for due, m in database.outbox if m.topic != "document.due"]
        if asked:
            told.asked = asked
    assert told.asked[-1].headers[4] == ("ce_type", b"enrichment.requested")
    for _ in range(2):
        clock.advance(300)
        await sweeper.look()
    await told.fleet.run()

    [event] = told.fleet.events("enrichment.failed")
    assert event["code"] == "stuck"
    assert status(told).status == "completed"


async def test_one_that_is_asked_for_again_is_made(told):
    told.documents.trouble = [Transient("away")]
    await told.upload()
    await told.fleet.run(until=timedelta(seconds=0.5))
    database, clock = told.fleet.database, told.fleet.clock
    database.outbox.clear()
    sweeper = Sweeper(
        database, database, Commits(database), told.store, ReadAll(), ("a", "b"), 3600.0, enrichments=("document",)
    )
    for _ in range(2):
        clock.advance(300)
        await sweeper.look()
    await told.fleet.run()

    assert len(told.fleet.events("document.generated")) == 1
    assert told.fleet.events("enrichment.failed") == []


async def test_one_whose_announcement_would_be_too_large_fails(told, monkeypatch):
    make = document.Document.make

    async def huge(self, job):
        made = await make(self, job)
        return replace(made, event=made.event.model_copy(update={"content_type": "x" * 1_000_000}))

    monkeypatch.setattr(document.Document, "make", huge)
    stage = await document.SPEC.open(SimpleNamespace(store=told.store, database=told.fleet.database))
    told.fleet.stages = [*told.fleet.stages[:-1], stage]
    await told.upload()
    await told.fleet.run()

    [event] = told.fleet.events("enrichment.failed")
    assert event["code"] == "too_large"
    assert status(told).status == "completed"


async def test_a_handler_that_hangs_comes_back_and_fails_in_the_end(told):
    stage = told.fleet.stages[-1]

    async def hang(_):
        await asyncio.sleep(3600)

    told.fleet.stages = [*told.fleet.stages[:-1], replace(stage, handle=hang, limit_s=0.001)]
    await told.upload()
    await told.fleet.run()

    [event] = told.fleet.events("enrichment.failed")
    assert event["code"] == "stuck"
    assert status(told).status == "completed"
