"""Cancelling jobs: each ends once, with its reason, and no other tenant's job is touched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from agents.upkeep import cancelling
from agents.upkeep.cancelling import cancel, cancel_all, cancelled
from schemas import topics
from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import Job, ProviderRequest
from schemas.messages import largest, size_of
from sinks.memory.database import MemoryDatabase

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WHOSE = {"tenant_id": "t", "job_id": "j"}
JOB = Job(**WHOSE, filename="a.wav", audio_uri="https://example.com/a.wav")


async def created(database: MemoryDatabase, *jobs: Job) -> None:
    await database.commit(
        [Step("intake", uuid4(), Outcome(tenant_id=j.tenant_id, job_id=j.job_id, create=j)) for j in jobs]
    )


def ends(database: MemoryDatabase) -> list[str]:
    return [message.job_id for _, message in database.outbox if message.topic == topics.FAILED.name]


async def test_a_cancelled_job_ends_once_with_its_reason_and_makes_no_more_requests():
    database = MemoryDatabase(clock=lambda: NOW)
    asked = ProviderRequest(**WHOSE, run=1, provider="a", state="submitted")
    outcome = Outcome(**WHOSE, create=replace(JOB, status="transcribing"), new_requests=(asked,))
    await database.commit([Step("intake", uuid4(), outcome)])
    job = await database.job("t", "j")
    counts = [await cancel(database, [job], "not needed"), await cancel(database, [job], "not needed")]
    job = await database.job("t", "j")

    assert counts == [1, 0]
    assert (job.status, job.code, job.reason) == ("failed", "cancelled", "not needed")
    assert ends(database) == ["j"]
    assert [row.state for row in await database.requests("t", "j", 1)] == ["failed"]


async def test_no_step_of_a_cancelled_job_stays_queued():
    database = MemoryDatabase(clock=lambda: NOW)
    states = {"intake": "done", "transcribe.a": "queued", "transcribe.b": "running", "transcribe.c": "failed"}
    steps = {name: StepState(state=state) for name, state in states.items()}
    await created(database, replace(JOB, status="transcribing", steps=steps))
    await cancel(database, [await database.job("t", "j")], "not needed")
    job = await database.job("t", "j")

    assert {name: step.state for name, step in job.steps.items()} == {
        "intake": "done", "transcribe.a": "cancelled", "transcribe.b": "cancelled", "transcribe.c": "failed",
        "cancel": "failed",
    }  # fmt: skip
    assert job.steps["transcribe.a"].finished_at == NOW


async def test_a_job_that_ended_since_it_was_read_is_not_counted():
    database = MemoryDatabase(clock=lambda: NOW)
    await created(database, replace(JOB, status="completed"))

    assert await cancel(database, [JOB], "not needed") == 0
    assert ends(database) == []


async def test_each_run_of_a_job_can_be_cancelled():
    database = MemoryDatabase(clock=lambda: NOW)
    await created(database, JOB)
    await cancel(database, [JOB], "not needed")
    begun = Outcome(**WHOSE, begin=replace(JOB, run=2))
    await database.commit([Step("intake", uuid4(), begun)])

    assert await cancel(database, [await database.job("t", "j")], "not needed either") == 1
    assert ends(database) == ["j", "j"]


async def test_jobs_that_have_ended_are_not_cancelled_and_cost_no_transaction():
    class Untouched(MemoryDatabase):
        async def commit(self, steps):
            raise AssertionError("nothing is to be committed")

    assert await cancel(Untouched(), [replace(JOB, status="completed"), replace(JOB, status="failed")], "no") == 0


async def test_the_end_of_a_cancelled_job_fits_its_topic_however_long_the_reason():
    outcome = cancelled(JOB, "x" * 100_000).outcome
    here = MemoryDatabase(clock=lambda: NOW)
    await created(here, JOB)
    await here.commit([Step("cancel", uuid4(), outcome)])

    assert ends(here) == ["j"]
    assert all(size_of(message) <= largest(message.topic) for _, message in here.outbox)


async def test_all_jobs_of_a_tenant_in_the_statuses_named_are_cancelled_page_by_page(monkeypatch):
    monkeypatch.setattr(cancelling, "MANY", 2)
    database = MemoryDatabase(clock=lambda: NOW)
    jobs = [replace(JOB, job_id=f"j{n}", status="uploaded") for n in range(5)]
    others = [replace(JOB, job_id="k", status="persisting"), replace(JOB, tenant_id="u", job_id="j1")]
    await created(database, *jobs, *others)

    counts = [count async for count in cancel_all(database, "t", ["uploaded"], "not needed")]

    assert counts == [2, 2, 1]
    assert sorted(ends(database)) == ["j0", "j1", "j2", "j3", "j4"]
    assert (await database.job("u", "j1")).status == "uploaded"
    assert (await database.job("t", "k")).status == "persisting"
