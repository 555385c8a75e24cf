"""What every database must report; see `sinks.ports.reading.reports`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from schemas.jobs.outcome import Failure, Outcome, Step, failed_progress
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.memory.reading.reports import MemoryReports
from sinks.ports.reading.reports import StepWork, UsedUp
from sinks.postgres.reader import Reader
from sinks.postgres.reading.reports import PostgresReports
from tests.contract.databases.cases import requests, used
from tests.contract.databases.test_reads import completed, created

PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def reported(under_test):
    """A database to write to, what reports on it, and what reads it."""
    database = under_test.database
    if isinstance(database, MemoryDatabase):
        return database, MemoryReports(database), MemoryReader(database)
    reader = Reader(under_test.pool)
    return database, PostgresReports(reader), reader


def done(what, job_id="j", tenant="acme", stage="transcribe.a", seconds=0.5, **more):
    return Step(stage, uuid4(), Outcome(tenant_id=tenant, job_id=job_id, audit=what, **more), seconds=seconds)


def failed(job_id, code, tenant="acme"):
    progress = failed_progress(1, "intake", Failure(f"{job_id} is bad", code, 1))
    return Step("intake", uuid4(), Outcome(tenant_id=tenant, job_id=job_id, progress=progress, audit="failed"))


async def test_a_jobs_trail_is_paged_oldest_first(reported):
    database, reports, _ = reported
    await database.commit([created("j"), created("j", "bolt"), created("k")])
    for n in range(4):
        await database.commit(
            [done(f"step {n}", error="slow" if n == 2 else None), done("other", "k"), done("other", "j", "bolt")]
        )

    everything = await reports.audit("acme", "j", limit=9)
    first = await reports.audit("acme", "j", limit=2)
    second = await reports.audit("acme", "j", limit=9, after=first[-1].id)

    assert first + second == everything
    steps = [row for row in everything if row.step == "transcribe.a"]
    assert [(row.what, row.error, row.duration_ms, row.run) for row in steps] == [
        (f"step {n}", "slow" if n == 2 else None, 500.0, 1) for n in range(4)
    ]
    assert await reports.audit("bolt", "k", limit=9) == []
    await database.commit([done("cancelled", author="key_1")])
    assert [row.author for row in await reports.audit("acme", "j", limit=9)][-2:] == [None, "key_1"]


async def test_a_run_is_measured_by_its_own_rows(reported):
    database, reports, reader = reported
    asked = requests((await one(database, reader, "j")), "a", "b")
    await database.commit(
        [Step("intake", uuid4(), Outcome(tenant_id="acme", job_id="j", new_requests=asked, audit="asked"))]
    )
    mine, of_run_2 = {"tenant_id": "acme"}, {"tenant_id": "acme", "run": 2, "ref": "2"}
    await database.record_usage(
        [used(**mine), used(**mine, ref="r2", quantity=3), used(**of_run_2), used(tenant_id="bolt")]
    )
    await database.commit([done("polled"), done("polled", seconds=0.25)])
    await database.commit([completed("j")])

    measures = await reports.measures("acme", "j", 1)

    assert StepWork("transcribe.a", 2, 0, 750.0) in measures.work
    assert [request.provider for request in measures.provider_requests] == ["a", "b"]
    assert measures.quality == {"agreement": None}
    assert measures.usage == [UsedUp("j", "gemini", "prompt_tokens", 10.0)]
    others = await reports.measures("bolt", "j", 1)
    assert (others.work, others.provider_requests, others.quality) == ([], [], {})


async def one(database, reader, id):
    await database.commit([created(id)])
    return await reader.job("acme", id)


async def test_activity_adds_up_the_time_that_is_asked_for(reported):
    database, reports, reader = reported
    await database.commit([created(f"j{n}", duration_ms=60_000) for n in range(3)] + [created("z", "bolt")])
    await database.commit([completed("j0"), completed("j1"), completed("z", "bolt")])
    job = await reader.job("acme", "j0")
    day = f"{job.created_at:%Y-%m-%d}"

    activity = await reports.activity("acme", PAST, FUTURE)

    counts = [(count.day, count.status, count.jobs, count.audio_ms) for count in activity.days]
    assert counts == [(day, "completed", 2, 120_000), (day, "uploaded", 1, 60_000)]
    assert activity.completed == 2
    assert 0 <= activity.median_s <= activity.p95_s < 60
    assert activity.disputed_share is None
    await database.commit([completed("j2", agreement=0.75)])
    assert (await reports.activity("acme", PAST, FUTURE)).disputed_share == pytest.approx(0.25)
    assert (await reports.activity("acme", FUTURE, FUTURE)).disputed_share is None
    assert (await reports.activity("acme", PAST, PAST)).disputed_share is None
    assert await reports.activity("acme", PAST, job.created_at) == await reports.activity("nobody", PAST, FUTURE)


async def test_failures_are_counted_by_code_with_the_newest_of_each(reported):
    database, reports, _ = reported
    for n in range(4):
        await database.commit([created(f"j{n}"), created(f"k{n}", "bolt")])
        await database.commit([failed(f"j{n}", "media" if n < 3 else "away"), failed(f"k{n}", "media", "bolt")])

    found = await reports.failures("acme", PAST, examples=2)

    assert [(one.code, one.jobs, one.job_id) for one in found] == [
        ("media", 3, "j2"),
        ("media", 3, "j1"),
        ("away", 1, "j3"),
    ]
    assert (found[0].reason, found[0].filename) == ("j2 is bad", "j2.wav")
    assert await reports.failures("acme", FUTURE, examples=2) == []


async def test_usage_is_told_apart_by_day_job_or_provider_in_pages(reported):
    database, reports, _ = reported
    await database.record_usage(
        [
            used(tenant_id="acme", job_id=f"j{n % 2}", ref=str(n), unit=unit)
            for n in range(4)
            for unit in ("tokens", "Seconds")
        ]
        + [used(tenant_id="bolt", ref="x")]
    )
    today = f"{await database.now():%Y-%m-%d}"

    by_job = await reports.used("acme", PAST, FUTURE, "job", limit=9)
    first = await reports.used("acme", PAST, FUTURE, "job", limit=3)
    place = (first[-1].of, first[-1].provider, first[-1].unit)

    assert [(row.of, row.unit, row.quantity) for row in by_job] == [
        (job, unit, 14.0) for job in ("j0", "j1") for unit in ("Seconds", "tokens")
    ]
    assert first + await reports.used("acme", PAST, FUTURE, "job", limit=9, after=place) == by_job
    assert await reports.used("acme", PAST, FUTURE, "day", limit=1) == [UsedUp(today, "gemini", "Seconds", 28.0)]
    assert [row.of for row in await reports.used("acme", PAST, FUTURE, "provider", limit=9)] == ["", ""]
    assert await reports.used("acme", PAST, datetime.now(UTC) - timedelta(days=1), "day", limit=9) == []
