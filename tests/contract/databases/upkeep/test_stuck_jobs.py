"""What every database must return about stuck jobs; see `sinks.ports.upkeep.stuck_jobs`."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from schemas import topics
from schemas.events.asr import AsrDeadline, AsrRequest
from schemas.jobs.outcome import Later, Outcome, Progress, Step
from tests.contract.databases.cases import created, job

WHOSE = {"tenant_id": "t", "job_id": "j"}
ASKED = Later(
    topics.requests("a").name,
    AsrRequest(**WHOSE, provider="a", audio_uri="file:///a.wav"),
    seconds=3600,
    kind=topics.REQUEST_TYPE,
)
DEADLINE = Later(topics.RECONCILE_DUE.name, AsrDeadline(**WHOSE), seconds=3600, kind="asr.deadline")


async def soon(database):
    """A moment after everything that has happened so far."""
    return await database.now() + timedelta(seconds=1)


async def stuck(database, status):
    return await database.stuck_jobs(status, await soon(database), 10)


@pytest.mark.parametrize("status", ["uploaded", "reconciling", "persisting"])
async def test_an_open_job_without_a_waiting_event_is_stuck(under_test, status):
    database = under_test.database
    await database.commit([created(job(status=status)), created(job("ended", status="completed"))])
    long_ago = await database.now() - timedelta(hours=1)

    [one] = await stuck(database, status)

    assert (one.job.job_id, one.providers, one.times) == ("j", (), 0)
    assert await database.stuck_jobs(status, long_ago, 10) == []


async def test_of_a_job_that_is_transcribed_waiting_events_are_looked_for_by_recognizer(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b", later=(ASKED, DEADLINE))])
    await database.commit([created(job("k", status="transcribing"), "a")])

    by_job = {one.job.job_id: one for one in await stuck(database, "transcribing")}

    assert (by_job["j"].providers, by_job["j"].without_deadline) == (("b",), False)
    assert (by_job["k"].providers, by_job["k"].without_deadline) == (("a",), True)


async def test_a_job_with_everything_on_its_way_is_not_stuck(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", later=(ASKED, DEADLINE))])

    assert await stuck(database, "transcribing") == []


@pytest.mark.parametrize(
    ("status", "key"),
    [
        ("uploaded", "fetch/t/j/1"),
        ("reconciling", "reconcile/t/j/1"),
        ("transcribing", "transcribe/t/j/1/a"),
        ("transcribing", "upload/t/j/1/a"),
    ],
)
async def test_a_job_of_which_a_task_runs_is_not_stuck(under_test, status, key):
    database = under_test.database
    await database.commit([created(job(status=status), "a", later=(DEADLINE,) * (status == "transcribing"))])
    before = await stuck(database, status)

    assert await database.lease(key, "a worker", 60)
    during = await stuck(database, status)
    await database.release(key, "a worker")

    assert (len(before), during, len(await stuck(database, status))) == (1, [], 1)


async def test_another_tenants_event_does_not_count(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", later=(ASKED, DEADLINE))])
    await database.commit([created(job(tenant="other", status="transcribing"), "a")])

    assert [one.job.tenant_id for one in await stuck(database, "transcribing")] == ["other"]


async def test_revivals_are_counted_until_the_job_changes(under_test):
    database = under_test.database
    await database.commit([created(job(status="reconciling"))])
    for times in (1, 2):
        before = await database.now()
        await database.note_revivals([await database.job("t", "j")])
        assert await database.stuck_jobs("reconciling", before, 10) == []
        [one] = await stuck(database, "reconciling")
        assert one.times == times

    moved = Outcome(tenant_id="t", job_id="j", progress=Progress(run=1, reason="moved"))
    await database.commit([Step("reconcile", uuid4(), moved)])

    [one] = await stuck(database, "reconciling")
    assert one.times == 0
