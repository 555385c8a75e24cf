"""What a recognizer on this machine hears ends when its request does, and looking for that costs little."""

from __future__ import annotations

import asyncio

import pytest

from agents.stages.asr_requests import stopping
from schemas.errors import Unavailable
from schemas.jobs.rows import ProviderRequest
from sinks.memory.database import MemoryDatabase

RUN = ("t", "j", 1)


class Database(MemoryDatabase):
    """Notes the moments at which it is asked for requests, which are in `state`; it is away so many times first."""

    def __init__(self, state: str | None = "waiting", away: int = 0) -> None:
        super().__init__()
        self.asked, self.state, self.away = [], state, away

    async def requests(self, tenant_id, job_id, run):
        self.asked.append(asyncio.get_running_loop().time())
        if len(self.asked) <= self.away:
            raise Unavailable("away")
        names = ("whisper-base", "other") if self.state else ()
        whose = {"tenant_id": tenant_id, "job_id": job_id, "run": run}
        return [ProviderRequest(**whose, provider=name, state=self.state) for name in names]


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(stopping, "LOOK_S", 0.05)


async def never() -> str:
    await asyncio.Event().wait()
    return "heard"


async def soon() -> str:
    await asyncio.sleep(0.12)
    return "heard"


@pytest.mark.parametrize("state", ["failed", "done", None])
async def test_what_has_ended_or_is_deleted_is_stopped(state):
    database = Database(state, away=1)

    async with asyncio.timeout(5):
        assert await stopping.Stopping(database, "whisper-base").unless_ended(RUN, never()) is None
    assert len(database.asked) == 2


async def test_what_goes_on_has_its_result_or_its_error():
    watch = stopping.Stopping(Database(), "whisper-base")

    async def broken() -> str:
        raise ZeroDivisionError

    assert await watch.unless_ended(RUN, soon()) == "heard"
    with pytest.raises(ZeroDivisionError):
        await watch.unless_ended(RUN, broken())


async def test_a_look_is_taken_now_and_then_while_something_is_heard_for_all_together():
    """Questions of one moment share a statement; see `PostgresRequests`."""
    database = Database()
    watch = stopping.Stopping(database, "whisper-base")

    assert await asyncio.gather(*(watch.unless_ended(RUN, soon()) for _ in range(3))) == ["heard"] * 3
    await asyncio.sleep(0.12)

    assert len(database.asked) == 2 * 3
    assert database.asked[2] - database.asked[0] < 0.02
    assert await watch.unless_ended(RUN, soon()) == "heard"
    assert len(database.asked) == 2 * 3 + 2


async def test_cancelling_ends_the_work_first():
    watch, ended = stopping.Stopping(Database(), "whisper-base"), []

    async def work() -> None:
        try:
            await never()
        finally:
            ended.append(True)

    task = asyncio.create_task(watch.unless_ended(RUN, work()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
