"""How single figures are taken."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import aiohttp
import asyncpg
import orjson

from agents.fleet.servers import dsn_of
from agents.fleet.settings import Settings
from bench.processes import cpu_seconds


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """(median, 99th percentile)."""
    ordered = sorted(values) or [float("nan")]
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


async def until_ready(log: Path, process: asyncio.subprocess.Process) -> str:
    """The worker's base URL, once it says that it is ready."""
    give_up = time.monotonic() + 60
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        while time.monotonic() < give_up and process.returncode is None:
            found = re.search(r"HTTP on (http\S+)", log.read_text())
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if found and (await session.get(f"{found[1]}/readyz")).status == 200:
                    return found[1]
            await asyncio.sleep(0.2)
    raise RuntimeError(f"the worker did not get ready:\n{log.read_text()[-3000:]}")


async def cpu_share(pid: int, seconds: float) -> float:
    """CPU time over wall time of a process and its children."""
    before, began = cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)


async def fill_outbox(settings: Settings, count: int) -> None:
    """Rows that are due in an hour, as polls of a slow provider are."""
    connection = await asyncpg.connect(dsn_of(settings))
    try:
        await connection.execute(
            "INSERT INTO outbox (shard, due_at, event_id, topic, key, value, headers) "
            "SELECT 0, now() + interval '1 hour', gen_random_uuid(), 'reconcile.due', 'k', repeat('x', 300)::bytea, "
            "'[]' "
            "FROM generate_series(1, $1::int)",
            count,
        )
    finally:
        await connection.close()


@dataclass
class Statuses:
    """Follows jobs over HTTP; how long after its commit each status was received, in seconds."""

    session: aiohttp.ClientSession
    url: str
    delays_s: list[float] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def follow(self, job: str) -> None:
        """Watch one job until its run ends."""
        self._tasks.append(asyncio.create_task(self._follow(job)))

    async def _follow(self, job: str) -> None:
        while True:
            async with self.session.get(f"{self.url}/jobs/{job}/events") as answer:
                if answer.status == 404:  # not created yet
                    await asyncio.sleep(0.005)
                    continue
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        self._note(orjson.loads(line[5:]))
                return

    def _note(self, status: dict[str, str]) -> None:
        self.delays_s.append(time.time() - datetime.fromisoformat(status["updated_at"]).timestamp())

    async def done(self) -> None:
        """Wait for every watch to end."""
        await asyncio.wait_for(asyncio.gather(*self._tasks), 60)


@contextlib.asynccontextmanager
async def statuses(url: str) -> AsyncIterator[Statuses]:
    """A follower of jobs; at the end, all of its watches have ended."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        following = Statuses(session, url)
        yield following
        await following.done()
