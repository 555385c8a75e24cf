"""What every database must return to API clients; see `sinks.ports.reads`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from schemas.events.job import StepState
from schemas.ids import EVERY_TENANT
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import File, Job
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.ports.reads import JobFilter
from sinks.postgres.reader import Reader
from tests.contract.databases.cases import transcript


def step(outcome, stage="intake"):
    return Step(stage, uuid4(), outcome)


def created(job_id, tenant="acme", asked=(), **more):
    job = Job(tenant_id=tenant, job_id=job_id, filename=f"{job_id}.wav", audio_uri="s3://b/a.wav", **more)
    return step(Outcome(tenant_id=tenant, job_id=job_id, create=job, new_requests=asked, files=(file(job_id, tenant),)))


def begun(job_id, run, tenant="acme"):
    job = Job(tenant_id=tenant, job_id=job_id, run=run, filename="again.wav", audio_uri="s3://b/a.wav")
    return step(Outcome(tenant_id=tenant, job_id=job_id, begin=job))


def completed(job_id, tenant="acme", run=1, **more):
    progress = Progress(run=run, status="completed", stage="persist", step=StepState(state="done"))
    text = replace(transcript(job_id, tenant, run), **more)
    return step(Outcome(tenant_id=tenant, job_id=job_id, progress=progress, transcript=text), "persist")


def file(job_id, tenant, kind="original"):
    return File(
        tenant_id=tenant,
        job_id=job_id,
        run=1,
        kind=kind,
        uri=f"s3://b/{job_id}",
        size_bytes=3,
        content_type="audio/wav",
        sha256="0" * 64,
    )


@pytest.fixture
def stored(under_test):
    """A database to write to, and what reads it."""
    database = under_test.database
    return database, MemoryReader(database) if isinstance(database, MemoryDatabase) else Reader(under_test.pool)


async def everything(reader, tenant, *, limit=50, **wanted):
    """Every page of a tenant's jobs, as lists of ids."""
    pages, before = [], None
    while True:
        page = await reader.jobs(tenant, JobFilter(**wanted), before=before, limit=limit)
        pages.append([job.job_id for job in page.jobs])
        before = page.following
        if before is None:
            return pages


async def test_a_job_is_read_as_it_was_written(stored):
    database, reader = stored
    steps = {"intake": StepState(state="done", attempts=2, progress=1.0)}
    await database.commit([created("j", metadata={"caller": "Zoë"}, steps=steps)])

    found = await reader.job("acme", "j")

    assert found == await database.job("acme", "j")
    assert await reader.status_version("acme", "j") == (found.created_at, found.version)
    assert (found.steps["intake"].attempts, found.steps["intake"].progress) == (2, 1.0)


async def test_what_is_another_tenants_does_not_exist(stored):
    database, reader = stored
    await database.commit([created("j")])
    await database.commit([completed("j")])

    assert await reader.job("bolt", "j") is None
    assert await reader.find("bolt", "j") == []
    assert await reader.status_version("bolt", "j") is None
    assert await reader.transcript("bolt", "j") is None
    assert await reader.files("bolt", "j") == []
    assert (await reader.jobs("bolt")).jobs == []


async def test_an_operator_sees_all(stored):
    database, reader = stored
    await database.commit([created("j"), created("k", "bolt")])
    await database.commit([completed("j")])

    assert [job.key for job in await reader.find(EVERY_TENANT, "k")] == [("bolt", "k")]
    assert (await reader.transcript("acme", "j")).text == "hello in run 1"
    assert await reader.files("acme", "j") == [file("j", "acme")]
    assert await reader.tenants() == ["acme", "bolt"]
    assert await reader.tenants(limit=1) == ["acme"]


async def test_a_job_is_found_by_its_id_in_any_spelling_and_by_its_reference(stored):
    database, reader = stored
    id = "4711ca11-0000-4000-8000-00000000000a"
    await database.commit([created(id, reference="call 1/2"), created(id, "bolt"), created("k", reference=id)])

    assert [job.tenant_id for job in await reader.find(EVERY_TENANT, id)] == ["acme", "bolt"]
    assert [job.tenant_id for job in await reader.find(EVERY_TENANT, id, limit=1)] == ["acme"]
    for name in (id, id.upper(), id.replace("-", ""), "call 1/2"):
        assert [job.job_id for job in await reader.find("acme", name)] == [id]
    assert await reader.find("bolt", "call 1/2") == []
    assert await reader.find(EVERY_TENANT, "call") == []


async def test_two_tenants_with_one_job_id_read_their_own(stored):
    database, reader = stored
    await database.commit([created("j"), created("j", "bolt")])
    await database.commit([completed("j", run=1)])

    assert (await reader.transcript("acme", "j")).tenant_id == "acme"
    assert await reader.transcript("bolt", "j") is None
    assert await reader.files("bolt", "j") == [file("j", "bolt")]


async def test_names_that_are_queried_together_are_distinguished(stored):
    database, reader = stored
    mine = str(uuid4())
    await database.commit([created("j"), created("k"), created(mine, reference="order/7"), created("j", "bolt")])
    asked = [("acme", "j"), ("acme", "order/7"), ("acme", mine.upper()), ("acme", "x"), ("bolt", "j"), ("bolt", "k")]

    found = await asyncio.gather(*(reader.find(*who) for who in asked))
    standings = await asyncio.gather(
        *(reader.status_version(*key) for key in (("acme", "j"), ("bolt", "k"), ("acme", mine)))
    )

    expected = [[("acme", "j")], [("acme", mine)], [("acme", mine)], [], [("bolt", "j")], []]
    assert [[job.key for job in jobs] for jobs in found] == expected
    assert [status_version and status_version[1] for status_version in standings] == [1, None, 1]


async def test_what_is_unknown_is_none(stored):
    _, reader = stored

    assert await reader.find(EVERY_TENANT, "nobody") == []
    assert await reader.status_version("acme", "nobody") is None
    assert await reader.transcript("acme", "nobody") is None
    assert await reader.files("acme", "nobody") == []
    assert await reader.tenants() == []


async def test_pages_hold_every_job_once_newest_first_also_where_many_were_created_at_once(stored):
    database, reader = stored
    for batch in range(4):
        await database.commit([created(f"job-{batch}-{n}") for n in range(5)])

    pages = await everything(reader, "acme", limit=3)

    assert [len(page) for page in pages] == [3] * 6 + [2]
    batches = [job_id.split("-")[1] for page in pages for job_id in page]
    assert batches == sorted(batches, reverse=True)
    assert len({job_id for page in pages for job_id in page}) == 20


async def test_a_page_that_is_just_full_is_the_last(stored):
    database, reader = stored
    await database.commit([created(f"j{n}") for n in range(3)])

    page = await reader.jobs("acme", limit=3)

    assert len(page.jobs) == 3
    assert page.following is None


async def test_jobs_that_come_meanwhile_move_no_page(stored):
    database, reader = stored
    await database.commit([created(f"old-{n}") for n in range(4)])
    first = await reader.jobs("acme", limit=2)
    await database.commit([created(f"new-{n}") for n in range(3)])

    second = await reader.jobs("acme", limit=2, before=first.following)

    assert {job.job_id for job in first.jobs + second.jobs} == {"old-0", "old-1", "old-2", "old-3"}


async def test_a_list_can_be_narrowed_to_statuses(stored):
    database, reader = stored
    await database.commit([created(f"j{n}") for n in range(5)])
    await database.commit([completed("j1"), completed("j3")])

    assert sorted(await everything(reader, "acme", statuses={"completed"}, limit=1)) == [["j1"], ["j3"]]
    assert sorted((await everything(reader, "acme", statuses={"uploaded"}))[0]) == ["j0", "j2", "j4"]
    assert await everything(reader, "acme", statuses={"failed"}) == [[]]
    both = await everything(reader, "acme", statuses={"completed", "uploaded", "failed"}, limit=2)
    assert both == await everything(reader, "acme", limit=2)


async def test_the_newest_run_with_a_transcript_is_read_unless_one_is_named(stored):
    database, reader = stored
    for change in (created("j"), completed("j"), begun("j", 2)):
        await database.commit([change])
    while_running = await reader.transcript("acme", "j")
    await database.commit([completed("j", run=2)])

    assert while_running == transcript("j", "acme", 1)
    assert (await reader.transcript("acme", "j")).run == 2
    assert (await reader.transcript("acme", "j", 1)).text == "hello in run 1"
    assert await reader.transcript("acme", "j", 3) is None


async def test_open_jobs_are_counted_by_status(stored):
    database, reader = stored
    await database.commit([created(f"j{n}") for n in range(3)] + [created("k", "bolt", status="transcribing")])
    await database.commit([completed("j0")])

    assert await reader.counts() == {"uploaded": 2, "transcribing": 1, "reconciling": 0, "persisting": 0}
