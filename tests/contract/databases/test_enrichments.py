"""What every database must do with enrichments: begin them with the run's end, end them once, find the stuck ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from schemas import ids, topics
from schemas.events.enrichment import DocumentGenerated, EnrichmentRequested
from schemas.events.job import StepState
from schemas.jobs.outcome import EnrichmentChange, Failure, Later, Outcome, Progress, Step, failed_enrichment
from tests.contract.databases.cases import created, job

OWNER = {"tenant_id": "t", "job_id": "j"}
MADE = DocumentGenerated(**OWNER, document_uri="file:///d.md", size_bytes=3, sha256="0" * 64)


def step(outcome):
    return Step("document", uuid4(), outcome)


def ended(*kinds):
    """The run completes, and these enrichments begin."""
    progress = Progress(run=1, status="completed", stage="persist", step=StepState(state="done"))
    return step(Outcome(**OWNER, progress=progress, new_enrichments=kinds))


def change(state, *, run=1, kind="document", later=(), **columns):
    return step(Outcome(**OWNER, enrichment=EnrichmentChange(run=run, kind=kind, state=state, **columns), later=later))


@pytest.fixture
async def database(under_test):
    """With a job whose run has completed, and two kinds that have begun."""
    await under_test.database.commit([created(job(status="persisting"))])
    await under_test.database.commit([ended("document", "summary")])
    return under_test.database


async def test_enrichments_begin_with_the_end_of_the_run(database):
    row = await database.job("t", "j")

    assert row.status == "completed"
    assert {kind: status.state for kind, status in row.enrichment.items()} == {
        "document": "pending",
        "summary": "pending",
    }


async def test_one_is_changed_and_the_run_is_not(database):
    before = await database.job("t", "j")
    [written] = await database.commit([change("retrying", attempts=1, error="away")])
    after = await database.job("t", "j")

    assert written.applied
    assert after.version == before.version + 1
    assert (after.enrichment["document"].state, after.enrichment["document"].error) == ("retrying", "away")
    assert after.enrichment["summary"] == before.enrichment["summary"]
    assert replace(after, version=0, updated_at=None, enrichment={}) == replace(
        before, version=0, updated_at=None, enrichment={}
    )


async def test_one_ends_once_also_within_a_batch_and_announces_it_under_one_id(database):
    later = (Later(topics.DOCUMENT.name, MADE),)
    first, second = await database.commit([change("done", later=later), change("done", later=later)])
    [third] = await database.commit([change("failed", error="late")])

    assert (first.applied, second.applied, third.applied) == (True, False, False)
    announced = [message.id for message, _ in first.messages if message.topic == topics.DOCUMENT.name]
    assert announced == [ids.terminal_id("t", "j", 1, "document.generated/document")]
    assert not any(message.topic == topics.DOCUMENT.name for message, _ in second.messages)
    assert (await database.job("t", "j")).enrichment["document"].state == "done"


async def test_the_end_of_the_run_and_of_its_enrichment_may_be_in_one_batch(under_test):
    database = under_test.database
    await database.commit([created(job(status="persisting"))])
    both = await database.commit([ended("document"), change("done")])

    assert all(written.applied for written in both)
    assert (await database.job("t", "j")).enrichment["document"].state == "done"


async def test_what_nobody_began_or_is_of_another_run_is_refused_and_a_later_run_may_come(database):
    unknown, earlier, later = await database.commit(
        [change("done", kind="report"), change("done", run=0), change("done", run=2)]
    )

    assert not any(written.applied for written in (unknown, earlier, later))
    assert later.forgotten, "after a restore the run may come yet"


async def test_a_failed_one_changes_only_when_it_is_started_again(database):
    failed = failed_enrichment(await database.job("t", "j"), "document", Failure("no", "stuck", 3))
    await database.commit([step(failed)])
    [refused] = await database.commit([change("running")])
    [again] = await database.commit([change("done", reopens=True)])

    assert (refused.applied, again.applied) == (False, True)
    status = (await database.job("t", "j")).enrichment["document"]
    assert (status.state, status.error, status.code) == ("done", None, None)


async def test_the_next_run_ends_those_that_are_open(database):
    await database.commit([change("done")])
    row = await database.job("t", "j")
    begun = replace(row, run=2, status="uploaded", metadata=None)
    await database.commit([step(Outcome(**OWNER, begin=begun))])

    assert (await database.job("t", "j")).enrichment == {}
    assert await database.stuck_enrichments("summary", await database.now() + timedelta(days=1), 10) == []
    [late] = await database.commit([change("done", kind="summary")])
    assert not late.applied


async def test_one_without_an_event_is_stuck_and_counted(database):
    soon = await database.now() + timedelta(seconds=1)
    [one] = await database.stuck_enrichments("document", soon, 10)
    assert (one.enrichment.kind, one.enrichment.state, one.times) == ("document", "pending", 0)

    await database.note_enrichment_revivals([one.enrichment])
    assert await database.stuck_enrichments("document", await database.now() - timedelta(hours=1), 10) == []
    [again] = await database.stuck_enrichments("document", await database.now() + timedelta(seconds=1), 10)
    assert again.times == 1

    await database.commit([change("retrying", attempts=1)])
    [changed] = await database.stuck_enrichments("document", await database.now() + timedelta(seconds=1), 10)
    assert changed.times == 0, "it has moved since"


async def test_one_that_waits_for_its_event_or_has_ended_is_not_stuck(database):
    request = EnrichmentRequested(**OWNER, run=1, kind="document")
    waits = Later("document.due", request, seconds=3600, kind="enrichment.requested")
    await database.commit([change("retrying", later=(waits,)), change("done", kind="summary")])
    soon = await database.now() + timedelta(seconds=1)

    assert await database.stuck_enrichments("document", soon, 10) == []
    assert await database.stuck_enrichments("summary", soon, 10) == []


@pytest.mark.parametrize("key", ["document/t/j/1", "document/t/j/1/1"])
async def test_one_that_a_task_makes_is_not_stuck(database, key):
    assert await database.lease(key, "a worker", 60)
    soon = await database.now() + timedelta(seconds=1)
    during = await database.stuck_enrichments("document", soon, 10)
    await database.release(key, "a worker")

    assert (during, len(await database.stuck_enrichments("document", soon, 10))) == ([], 1)


def begins(generation, *, kind="document", transcript_version=1):
    return change("pending", kind=kind, begins=True, generation=generation, transcript_version=transcript_version)


async def test_one_that_has_ended_is_made_again_and_announced_by_another_event(under_test, database):
    announced = Later(topics.DOCUMENT.name, MADE)
    await database.commit([change("done", result={"a": 1}, later=(announced,))])
    [begun] = await database.commit([begins(2)])
    pending = (await database.job("t", "j")).enrichment["document"]
    [late] = await database.commit([change("done", later=(announced,))])
    again = Later(topics.DOCUMENT.name, MADE.model_copy(update={"generation": 2}))
    [done] = await database.commit([change("done", generation=2, later=(again,))])

    assert (begun.applied, pending.state, pending.generation, late.applied) == (True, "pending", 2, False)
    assert done.applied
    events = [id for topic, id in await under_test.outbox() if topic == topics.DOCUMENT.name]
    assert len(set(events)) == len(events) == 2


async def test_one_that_is_being_made_or_was_begun_meanwhile_is_not_begun_again(database):
    assert not (await database.commit([begins(2)]))[0].applied
    await database.commit([change("done"), begins(2)])
    await database.commit([change("failed", generation=2)])

    assert not (await database.commit([begins(2)]))[0].applied
    assert not (await database.commit([begins(3, transcript_version=2)]))[0].applied
    assert (await database.commit([begins(3)]))[0].applied


async def test_a_kind_that_there_was_not_is_begun_unless_the_upload_wanted_none(under_test, database):
    assert (await database.commit([begins(1, kind="index")]))[0].applied
    assert (await database.job("t", "j")).enrichment["index"].state == "pending"
    await database.commit([created(job("k", status="completed", options={"enrich": False}))])
    outcome = replace(begins(1, kind="index").outcome, job_id="k")
    assert not (await database.commit([step(outcome)]))[0].applied


async def test_one_that_waits_for_another_is_not_stuck(under_test):
    database = under_test.database
    await database.commit([created(job(status="persisting"))])
    await database.commit([ended("report", "summary")])
    soon = await database.now() + timedelta(seconds=1)

    assert await database.stuck_enrichments("report", soon, 10) == []
    await database.commit([change("failed", kind="summary", error="no")])
    [one] = await database.stuck_enrichments("report", await database.now() + timedelta(seconds=1), 10)
    assert one.enrichment.kind == "report"
