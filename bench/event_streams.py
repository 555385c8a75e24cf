"""Many clients that follow a few jobs by server-sent events, in a process of their own."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import aiohttp
import orjson

from bench.load import Load

#: Jobs that the clients of a round share.
JOBS = 20

#: Seconds before the jobs begin, in which all clients connect: so what is measured is updates, not connecting.
CONNECTING_S = 8.0


async def delays(url: str, load: Load, *, clients: int, seconds: float) -> list[float]:
    """Seconds from the commit of each status to each client, while jobs are uploaded and followed for so long."""
    loop = asyncio.get_running_loop()
    collected: list[float] = []
    until = time.monotonic() + seconds
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        while time.monotonic() < until:
            began = datetime.now(UTC) + timedelta(seconds=CONNECTING_S)
            begins = [(began + timedelta(seconds=number / JOBS)).isoformat() for number in range(JOBS)]
            jobs = list(await asyncio.gather(*(load.stored(not_before=begin) for begin in begins)))
            sending = asyncio.create_task(load.send_all(jobs, rate=None))
            collected += await loop.run_in_executor(pool, _run, url, [job for job, _ in jobs], clients)
            await sending
    return collected


def _run(url: str, jobs: list[str], clients: int) -> list[float]:
    return asyncio.run(_follow(url, jobs, clients))


async def _follow(url: str, jobs: list[str], clients: int) -> list[float]:
    seen: list[float] = []
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(_one(session, url, jobs[n % len(jobs)], seen) for n in range(clients)))
    return seen


async def _one(session: aiohttp.ClientSession, url: str, job: str, seen: list[float]) -> None:
    while True:
        async with session.get(f"{url}/jobs/{job}/events?tenant=bench") as answer:
            if answer.status != 200:  # not created yet, or too many open streams
                await asyncio.sleep(0.1)
                continue
            first = True
            async for line in answer.content:
                if line.startswith(b"data:"):
                    if not first:  # the first is what there was when the stream was opened
                        seen.append(
                            time.time() - datetime.fromisoformat(orjson.loads(line[5:])["updated_at"]).timestamp()
                        )
                    first = False
            return
