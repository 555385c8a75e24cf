"""The status of a job: from the table or the database, whichever is newer."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, RequestChange
from schemas.jobs.rows import Job, ProviderRequest
from schemas.jobs.status import status_of
from tests.web.service import (
    Holds,
    Worker,
    problem,
    stored,
    two,
)


async def test_the_table_answers_when_the_database_says_that_its_row_is_the_newest(worker):
    await worker.created()
    current = await worker.get("/jobs/j/status")
    await worker.moved("transcribing")
    behind = await worker.get("/jobs/j/status")
    await worker.tabled()
    again = await worker.get("/jobs/j/status")

    answers = [(r.headers["X-Concord-Source"], (await r.json())["version"]) for r in (current, behind, again)]
    assert answers == [("table", 1), ("database", 2), ("table", 2)]


async def test_a_job_that_is_not_in_the_table_is_answered_from_the_database(worker):
    await worker.created()
    worker.live.rows.clear()
    response = await worker.get("/jobs/j/status")

    assert response.headers["X-Concord-Source"] == "database"
    assert (await response.json())["links"]["events"] == "/jobs/j/events"


async def test_a_worker_with_an_old_table_shows_no_older_status_than_another_worker_before():
    """The relay is away: what is committed is in no table yet, and whoever has no row shows PostgreSQL's."""
    async with two() as (first, second):
        await first.created()
        before = await first.json("/jobs/j/status")
        await first.moved("transcribing")
        shown = await second.json("/jobs/j/status")
        after = await first.json("/jobs/j/status")

        assert [before["version"], shown["version"], after["version"]] == [1, 2, 2]


async def test_a_worker_with_an_old_table_does_not_contradict_a_list_of_another_worker():
    async with two() as (first, second):
        await first.created()
        await first.json("/jobs/j/status")
        await first.moved("completed")
        listed = await second.json("/tenants/acme/jobs")

        assert listed["jobs"][0]["status"] == (await first.json("/jobs/j/status"))["status"] == "completed"


async def test_a_status_that_only_the_table_has_is_not_shown():
    """Whoever speaks to the broker can write it there; what is true was committed first."""
    async with Worker(reader=Holds(j=stored("j", version=3))) as worker:
        worker.live.rows["acme", "j"] = status_of(stored("j", version=9, status="completed"))

        assert (await worker.json("/jobs/j/status"))["version"] == 3


async def test_the_id_of_a_deleted_job_can_be_used_again():
    old, new = stored("j", version=9), stored("j", version=1, created_at=datetime(2026, 6, 1, tzinfo=UTC))
    reader = Holds(j=old)
    async with Worker(reader=reader) as worker:
        worker.live.rows["acme", "j"] = status_of(old)
        assert (await worker.json("/jobs/j/status"))["version"] == 9
        reader.rows["j"] = new
        assert (await worker.json("/jobs/j/status"))["version"] == 1
        del reader.rows["j"]
        await problem(await worker.get("/jobs/j/status"), 404)


async def test_a_queued_recognizer_has_its_place_at_this_moment(worker):
    jobs = ("j", "k", "l")
    queue = worker.database
    for job in jobs:
        request = ProviderRequest(tenant_id="acme", job_id=job, run=1, provider="whisper-base")
        created = Job(tenant_id="acme", job_id=job, filename="call.wav", audio_uri="s3://b/a")
        await worker.commit("intake", Outcome(tenant_id="acme", job_id=job, create=created, new_requests=(request,)))
        await queue.acquire_slot("acme", job, 1, "whisper-base", 1)
        queued = Progress(run=1, stage="transcribe.whisper-base", step=StepState(state="queued"))
        await worker.commit("transcribe", Outcome(tenant_id="acme", job_id=job, progress=queued))
        await worker.tabled(job)
    begun = RequestChange(run=1, provider="whisper-base", token=0, columns={"submitted_at": queue.clock()})
    await worker.commit("transcribe", Outcome(tenant_id="acme", job_id="j", request=begun))

    async def step(job):
        return (await worker.json(f"/jobs/{job}/status"))["steps"]["transcribe.whisper-base"]

    assert [(await step(job))["position"] for job in jobs] == [None, 1, 2]
    assert (await step("k"))["state"] == "queued"
