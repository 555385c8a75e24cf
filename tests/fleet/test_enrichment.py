"""Enrichments of a completed run: created once, retried, and without an effect on the run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from agents.stages.enrichments import document
from agents.upkeep.stuck_jobs import TRIES
from agents.upkeep.sweeper import Sweeper
from schemas import blob_names
from schemas.errors import InvalidInput, Transient, Unavailable
from schemas.events.job import JobReprocess
from tests.fleet.conftest import JOB, FakeRecognizer, enriching
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
async def scenario(make_scenario):
    """A fleet that makes documents."""
    it = make_scenario(FakeRecognizer("a"), FakeRecognizer("b"), enrichments=("document",))
    it.documents = Troubled(it.store)
    stage = await document.SPEC.open(enriching(it.documents, it.fleet.database))
    it.fleet.stages = [*it.fleet.stages, stage]
    return it


def status(scenario):
    return scenario.fleet.status("t", JOB)


async def row(scenario, run=1):
    return scenario.fleet.database.enrichments["t", JOB, run, "document"]


async def test_a_document_is_made_of_a_transcript_and_announced_once(scenario):
    await scenario.upload(metadata={"title": "A *bold* call | <b>", "agent": "Ann", "n" * 5000: "v" * 5000})
    await scenario.fleet.run()

    [event] = scenario.fleet.events("document.generated")
    text = (await scenario.store.get(event["document_uri"])).decode()
    assert text.startswith("# A \\*bold\\* call \\| \\<b\\>\n")
    assert "| agent | Ann |" in text
    assert f"| {'n' * 200} | {'v' * 200} |" in text
    assert "hello there world" in text
    assert event["document_uri"] == scenario.store.uri(blob_names.document("t", JOB, 1))
    assert (event["kind"], event["status"], event["version"]) == ("document", "done", "transcript/1")
    stored = await row(scenario)
    assert (stored.state, stored.attempts, stored.result["document_uri"]) == ("done", 1, event["document_uri"])
    assert status(scenario).enrichment["document"].state == "done"
    assert ("t", JOB, 1, "document") in scenario.fleet.database.files


async def test_the_run_is_completed_before_and_is_not_changed(scenario):
    scenario.documents.trouble = [Transient("away", retry_after=50)]
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=20))
    before = status(scenario)
    assert before.status == "completed"
    assert before.enrichment["document"].state == "retrying"

    await scenario.fleet.run()

    after = status(scenario)
    assert after.enrichment["document"].state == "done"
    assert after.version > before.version
    same = {"status", "run", "steps", "completed_at", "reason", "code", "progress"}
    assert after.model_dump(include=same) == before.model_dump(include=same)
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_what_is_delivered_again_makes_nothing_again(scenario):
    await scenario.upload()
    await scenario.fleet.run()
    for record in [*scenario.fleet.log["persisted"], *scenario.fleet.log["document.due"]]:
        scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    assert len(scenario.fleet.events("document.generated")) == 1


@pytest.mark.parametrize("error", [InvalidInput("no such thing"), ValueError("a fault of ours")])
async def test_one_that_cannot_be_made_fails_with_a_letter_and_the_run_stays(scenario, error):
    scenario.documents.trouble = [error] * 9
    await scenario.upload()
    await scenario.fleet.run()

    [event] = scenario.fleet.events("enrichment.failed")
    assert (event["kind"], event["run"]) == ("document", 1)
    assert event["code"]
    [letter] = scenario.fleet.log["persisted.dlq"]
    assert letter.header("dlq-stage") == "document"
    assert status(scenario).status == "completed"
    assert (status(scenario).enrichment["document"].state, (await row(scenario)).state) == ("failed", "failed")
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_a_letter_that_is_put_back_makes_it_after_all(scenario):
    scenario.documents.trouble = [InvalidInput("no such thing")]
    await scenario.upload()
    await scenario.fleet.run()
    [letter] = scenario.fleet.log["persisted.dlq"]

    headers = tuple((name, value) for name, value in letter.headers if not name.startswith("dlq-"))
    scenario.fleet.publish("document.due", letter.value, letter.key, (*headers, ("ce_replay", b"1")))
    await scenario.fleet.run()

    assert len(scenario.fleet.events("document.generated")) == 1
    assert status(scenario).enrichment["document"].state == "done"


async def test_our_own_store_away_is_no_try(scenario):
    scenario.documents.trouble = [Unavailable("away")] * 5
    await scenario.upload()
    await scenario.fleet.run()

    assert (await row(scenario)).attempts == 1
    assert status(scenario).enrichment["document"].state == "done"


async def test_the_next_run_leaves_an_open_one_behind_and_makes_its_own(scenario):
    scenario.documents.trouble = [Transient("away", retry_after=3000)]
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=60))
    scenario.fleet.publish(
        "intake.due", JobReprocess(tenant_id="t", job_id=JOB, run=2), headers=(("ce_type", b"job.reprocess"),)
    )
    await scenario.fleet.run()

    assert [event["run"] for event in scenario.fleet.events("document.generated")] == [2]
    assert ((await row(scenario)).state, (await row(scenario)).code) == ("failed", "superseded")
    assert (await row(scenario, 2)).state == "done"
    assert status(scenario).run == 2


async def test_nothing_is_made_where_the_upload_says_so_or_the_run_has_failed(scenario):
    await scenario.upload(options={"enrich": False})
    scenario.recognizers["a"].trouble = scenario.recognizers["b"].trouble = []
    await scenario.fleet.run()

    assert status(scenario).status == "completed"
    assert status(scenario).enrichment == {}
    assert scenario.fleet.events("document.generated") == []


async def test_one_whose_event_is_lost_is_asked_for_again_and_fails_in_the_end(scenario):
    scenario.documents.trouble = [Transient("away")] * 99
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=1))
    database, clock = scenario.fleet.database, scenario.fleet.clock
    database.outbox.clear()
    sweeper = Sweeper(
        database, database, Commits(database), scenario.store, ReadAll(), ("a", "b"), 3600.0, enrichments=("document",)
    )
    for _ in range(2 * TRIES):  # each second look revives what has stood still since the first
        clock.advance(300)
        await sweeper.look()
        asked = [message for _, message in database.outbox if message.topic == "document.due"]
        database.outbox = [(due, m) for due, m in database.outbox if m.topic != "document.due"]
        if asked:
            scenario.asked = asked
    assert scenario.asked[-1].headers[4] == ("ce_type", b"enrichment.requested")
    for _ in range(2):
        clock.advance(300)
        await sweeper.look()
    await scenario.fleet.run()

    [event] = scenario.fleet.events("enrichment.failed")
    assert event["code"] == "stuck"
    assert status(scenario).status == "completed"


async def test_one_that_is_asked_for_again_is_made(scenario):
    scenario.documents.trouble = [Transient("away")]
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=0.5))
    database, clock = scenario.fleet.database, scenario.fleet.clock
    database.outbox.clear()
    sweeper = Sweeper(
        database, database, Commits(database), scenario.store, ReadAll(), ("a", "b"), 3600.0, enrichments=("document",)
    )
    for _ in range(2):
        clock.advance(300)
        await sweeper.look()
    await scenario.fleet.run()

    assert len(scenario.fleet.events("document.generated")) == 1
    assert scenario.fleet.events("enrichment.failed") == []


async def test_one_whose_announcement_would_be_too_large_fails(scenario, monkeypatch):
    make = document.Document.make

    async def huge(self, job):
        made = await make(self, job)
        return replace(made, event=made.event.model_copy(update={"content_type": "x" * 1_000_000}))

    monkeypatch.setattr(document.Document, "make", huge)
    stage = await document.SPEC.open(enriching(scenario.store, scenario.fleet.database))
    scenario.fleet.stages = [*scenario.fleet.stages[:-1], stage]
    await scenario.upload()
    await scenario.fleet.run()

    [event] = scenario.fleet.events("enrichment.failed")
    assert event["code"] == "too_large"
    assert status(scenario).status == "completed"


async def test_a_handler_that_hangs_comes_back_and_fails_in_the_end(scenario):
    stage = scenario.fleet.stages[-1]

    async def hang(_):
        await asyncio.sleep(3600)

    scenario.fleet.stages = [*scenario.fleet.stages[:-1], replace(stage, handle=hang, limit_s=0.001)]
    await scenario.upload()
    await scenario.fleet.run()

    [event] = scenario.fleet.events("enrichment.failed")
    assert event["code"] == "stuck"
    assert status(scenario).status == "completed"


async def test_one_that_cannot_even_be_given_up_fails_and_its_run_stays(scenario):
    def refuse(*_):
        raise ValueError("a fault of ours")

    scenario.documents.trouble = [InvalidInput("no such thing")]
    stage = scenario.fleet.stages[-1]
    scenario.fleet.stages = [*scenario.fleet.stages[:-1], replace(stage, give_up=refuse)]
    await scenario.upload()
    await scenario.fleet.run()

    [event] = scenario.fleet.events("enrichment.failed")
    assert "the dead letter has the reason" in event["error"]
    assert len(scenario.fleet.log["persisted.dlq"]) == 1
    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert status(scenario).enrichment["document"].state == "failed"


async def test_one_whose_event_waited_for_long_and_is_being_handled_is_not_asked_for_again(scenario):
    """As while a language model hangs: the event has left the outbox since the sweeper's first look."""
    scenario.documents.trouble = [Transient("away", retry_after=600)]
    await scenario.upload()
    await scenario.fleet.run(until=timedelta(seconds=1))
    database, clock = scenario.fleet.database, scenario.fleet.clock
    sweeper = Sweeper(
        database, database, Commits(database), scenario.store, ReadAll(), ("a", "b"), 3600.0, enrichments=("document",)
    )
    clock.advance(500)
    await sweeper.look()
    waiting, database.outbox = database.outbox, []
    clock.advance(120)
    await sweeper.look()
    assert [message for _, message in database.outbox if message.topic == "document.due"] == []

    database.outbox = [*database.outbox, *waiting]
    await scenario.fleet.run()
    assert len(scenario.fleet.events("document.generated")) == 1
