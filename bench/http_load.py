"""An HTTP client that sends requests at a given rate whatever the answers take, in a process of its own.

The rate does not follow the server: a request that finds no free connection waits for one, and its time counts from the
moment at which it should have been sent (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from urllib.parse import urlsplit

import aiohttp
import uvloop


@dataclass
class Answers:
    """What became of the requests."""

    #: Seconds of each answer with the status of success, from the moment at which its request was due.
    seconds: list[float] = field(default_factory=list)
    #: By status, how many; 0 stands for a broken connection.
    statuses: Counter[int] = field(default_factory=Counter)
    #: Requests a second that were answered.
    rate: float = 0.0


async def ask(url: str, paths: Sequence[str], *, rate: float, seconds: float, connections: int = 32) -> Answers:
    """GET the paths in turn, `rate` a second for so many seconds, over keep-alive connections."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return await loop.run_in_executor(pool, _run, url, list(paths), rate, seconds, connections)


async def post(url: str, path: str, bodies: Sequence[dict[str, str]], *, at_once: int) -> Answers:
    """POST each body as JSON, so many at once; what is accepted (202) counts as success."""
    answers, following, began = Answers(), iter(bodies), time.perf_counter()

    async def client(session: aiohttp.ClientSession) -> None:
        for body in following:
            at = time.perf_counter()
            async with session.post(f"{url}{path}", json=body) as answer:
                await answer.read()
            answers.statuses[answer.status] += 1
            if answer.status == 202:
                answers.seconds.append(time.perf_counter() - at)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        await asyncio.gather(*(client(session) for _ in range(at_once)))
    answers.rate = len(bodies) / (time.perf_counter() - began)
    return answers


def _run(url: str, paths: list[str], rate: float, seconds: float, connections: int) -> Answers:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_ask(url, paths, rate, seconds, connections))


async def _ask(url: str, paths: list[str], rate: float, seconds: float, connections: int) -> Answers:
    answers, due = Answers(), asyncio.Queue[tuple[float, bytes]]()
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    headers = f" HTTP/1.1\r\nHost: {host}\r\n\r\n"
    workers = [asyncio.create_task(_connection(host, port, due, answers)) for _ in range(connections)]
    began = time.perf_counter()
    following = itertools.cycle(f"GET {path}{headers}".encode() for path in paths)
    for number in range(int(rate * seconds)):
        at = began + number / rate
        if (wait := at - time.perf_counter()) > 0.001:
            await asyncio.sleep(wait)
        due.put_nowait((at, next(following)))
    await due.join()
    answers.rate = sum(answers.statuses.values()) / (time.perf_counter() - began)
    for worker in workers:
        worker.cancel()
    return answers


async def _connection(host: str, port: int, due: asyncio.Queue[tuple[float, bytes]], answers: Answers) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while True:
        at, request = await due.get()
        try:
            writer.write(request)
            status = await _status(reader)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
            reader, writer = await asyncio.open_connection(host, port)
        answers.statuses[status] += 1
        if status == 200:
            answers.seconds.append(time.perf_counter() - at)
        due.task_done()


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of an answer whose body, of a declared length, is read and thrown away."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])
