"""`make bench-waiting`: many recordings that wait for a slow recognizer at the same time, on one worker.

The recognizer's server takes a minute (`--takes`) for each and says how late every look at it came. Meanwhile somebody
asks for the status of random jobs. Figures go to bench/results/waiting.md (`--report`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from agents.commands.serve import servers
from agents.fleet.environment import from_env
from agents.fleet.servers import kafka_of, open_store
from bench import measure
from bench.__main__ import Figures, worker
from bench.load import Load
from bench.processes import resident_mb

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "waiting.md"
RECOGNIZER = "scripted-slow"


@contextlib.asynccontextmanager
async def recognizer(folder: Path, takes_s: float, again_s: float) -> AsyncIterator[str]:
    """The base URL of the scripted recognizers' server, in a process of its own. It wants to be looked at every
    `again_s`.
    """
    port = random.randrange(20_000, 30_000)
    command = [sys.executable, "-m", "tests.servers.scripted", "--port", str(port), "--ledger", str(folder / "ledger")]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(100):
                with contextlib.suppress(aiohttp.ClientError):
                    await session.put(f"{url}/switches", json={"delay_s": takes_s, "poll_s": again_s})
                    break
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.kill()
        await process.wait()


def watch(url: str, pid: int, jobs: list[str], told: Connection) -> None:
    """In a process of its own, whose event loop nothing else keeps busy: ask for the status of random jobs ten times a
    second, and look at the worker's memory, until told that it is enough; then send when each answer came and how long
    it took, in seconds, and the most memory, in MB.
    """
    answers, most_mb = [], 0.0

    async def run() -> None:
        nonlocal most_mb
        async with aiohttp.ClientSession() as session:
            while not told.poll():
                most_mb = max(most_mb, resident_mb(pid))
                began = time.perf_counter()
                async with session.get(f"{url}/jobs/{random.choice(jobs)}/status?tenant=bench") as answer:
                    await answer.read()
                if answer.status == 200:
                    answers.append((time.time(), time.perf_counter() - began))
                await asyncio.sleep(0.1)

    asyncio.run(run())
    told.send((answers, most_mb))


async def run(wanted: argparse.Namespace, data: Path) -> Figures:
    """The measurement."""
    figures = Figures()
    async with recognizer(data, wanted.takes, wanted.looks or wanted.takes) as url:
        settings = from_env({"CONCORD_DATA": str(data), "CONCORD_RECOGNIZERS": RECOGNIZER, "SCRIPTED_BASE_URL": url})
        async with servers(settings) as complete:
            log = data / "worker.log"
            async with worker(complete, log, CONCORD_RECOGNIZERS=RECOGNIZER, SCRIPTED_BASE_URL=url) as process:
                web = await measure.until_ready(log, process)
                before = resident_mb(process.pid)
                async with Load(kafka_of(complete), open_store(complete), patience_s=wanted.takes + 600) as load:
                    jobs: list[tuple[str, bytes]] = []
                    while left := min(50, wanted.recordings - len(jobs)):
                        jobs += await asyncio.gather(*(load.stored() for _ in range(left)))
                    watching, told = get_context("spawn"), Pipe()
                    watcher = watching.Process(
                        target=watch, args=(web, process.pid, [job for job, _ in jobs], told[1]), daemon=True
                    )
                    watcher.start()
                    outcome = None
                    if wanted.stay is None:
                        outcome = await load.send_all(jobs, rate=wanted.rate)
                        until, seconds = "all ended", outcome.seconds
                    else:
                        until, seconds = "all were waiting", await load.submit_all(jobs, url, rate=wanted.rate)
                    then = time.time()
                    await asyncio.sleep(wanted.stay or 0)
                    told[0].send("enough")
                    answers, most_mb = await asyncio.to_thread(told[0].recv)
                async with aiohttp.ClientSession() as session, session.get(f"{url}/lateness") as answer:
                    late = await answer.json()
                async with aiohttp.ClientSession() as session, session.get(f"{url}/ledger") as answer:
                    charges = await answer.json()
    most = _at_once([(c["charged_at"], c["ready_at"]) for c in charges])
    figures.add(f"{wanted.recordings} recordings, a recognizer that takes {wanted.takes:.0f} s: {until} after",
                f"{seconds:.0f} s")  # fmt: skip
    figures.add("most that were waiting at once", f"{most}")
    twice = len(charges) - len({charge["marker"] for charge in charges})
    if outcome is not None:
        figures.add(
            "lost / announced twice / charged twice", f"{outcome.lost} / {outcome.twice} / {twice}", "0 / 0 / 0"
        )
    else:
        figures.add("charged twice", f"{twice}", "0")
    figures.add("most resident memory of the worker (before)", f"{most_mb:.0f} MB ({before:.0f})", "400 MB")
    late = [seconds for _, seconds in late]
    if late:
        p50, p99 = measure.percentiles(late)
        figures.add(
            f"{len(late)} looks, later than due: p50 / p99 / most", f"{p50:.2f} / {p99:.2f} / {max(late):.2f} s", "1 s"
        )
    for what, some in (
        (f"a status over HTTP until {until}", [took for when, took in answers if when < then]),
        ("the same while all were waiting", [took for when, took in answers if when >= then]),
    ):
        if some:
            p50, p99 = measure.percentiles(some)
            figures.add(f"{what}: p50 / p99", f"{p50 * 1000:.0f} / {p99 * 1000:.0f} ms", "20 ms")
    return figures


def _at_once(spans: list[tuple[float, float]]) -> int:
    """The most spans that overlap."""
    most = now = 0
    for _, change in sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans]):
        now += change
        most = max(most, now)
    return most


def main() -> None:
    """Run, print, write down."""
    parser = argparse.ArgumentParser("python -m bench.waiting", description=__doc__)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=None, help="uploads a second (default: as fast as they go)")
    parser.add_argument("--takes", type=float, default=60.0, help="seconds for each recording (default %(default)s)")
    parser.add_argument("--looks", type=float, help="seconds between looks that it asks for (default: as --takes)")
    parser.add_argument("--stay", type=float, help="end so many seconds after all were submitted, not when all ended")
    parser.add_argument("--report", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    wanted = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="concord-bench-"))
    data.chmod(0o755)
    try:
        figures = asyncio.run(run(wanted, data))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    said = f" ARGS='{shlex.join(sys.argv[1:])}'" if sys.argv[1:] else ""
    wanted.report.write_text(
        f"`make bench-waiting{said}`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores.\n\n{figures.table()}\n"
    )


if __name__ == "__main__":
    main()
