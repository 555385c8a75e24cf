"""`make bench`: how fast the fleet is on this machine, each figure beside a relay over as many topics that guarantees
nothing.

Everything is real (Kafka, PostgreSQL, local storage, a worker process with every role) but the recognizers, which
answer at once. `python -m bench --help` lists what may be set; the figures are printed as a table and written to
bench/results/fleet.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.commands.serve import servers
from agents.fleet.environment import from_env
from agents.fleet.servers import kafka_of, open_store
from agents.fleet.settings import Settings
from agents.runtime.kafka.client import Kafka
from agents.stages.registry import roles
from bench import bare, measure
from bench.load import Load
from bench.processes import cpu_seconds, resident_mb

RECOGNIZERS = "scripted-a,scripted-b"
RESULTS = Path(__file__).parent / "results" / "fleet.md"


@dataclass
class Figures:
    """What was measured, in order: (what, figure, aim)."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: str, aim: str = "") -> None:
        """Keep one figure and show it."""
        self.rows.append((what, figure, aim))
        print(f"  {what:64} {figure:>22}   {aim}", flush=True)

    def table(self) -> str:
        """All of them as Markdown."""
        lines = ["| what | measured | aim |", "| --- | --- | --- |"]
        return "\n".join(lines + [f"| {what} | {figure} | {aim} |" for what, figure, aim in self.rows])


def arguments() -> argparse.Namespace:
    """What may be set."""
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=3000, help="sent as fast as they go (default %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="recordings a second while latency is measured")
    parser.add_argument("--seconds", type=float, default=30.0, help="for which latency is measured")
    parser.add_argument("--enrichments", default="document", help="a list, or none (default %(default)s)")
    parser.add_argument("--waiting", type=int, default=100_000, help="outbox rows due in an hour, for their cost")
    return parser.parse_args()


@contextlib.asynccontextmanager
async def worker(
    settings: Settings, log: Path, names: Sequence[str] = (), **more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One process with these roles; with every role if none is named."""
    environment = {
        "PATH": os.environ["PATH"],
        "CONCORD_DATA": str(settings.data),
        "CONCORD_RECOGNIZERS": RECOGNIZERS,
        "CONCORD_ENRICHMENTS": ",".join(settings.enrichments) or "none",
        "CONCORD_HTTP": "127.0.0.1:0",
        "CONCORD_LOG_LEVEL": "INFO",
        **more,
    }
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agents",
            "worker",
            *(names or roles(settings.recognizers, settings.kinds)),
            env=environment,
            stdout=out,
            stderr=out,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def run(wanted: argparse.Namespace, data: Path) -> Figures:
    """All measurements, one after the other on the same fleet."""
    figures = Figures()
    chosen = {"CONCORD_RECOGNIZERS": RECOGNIZERS, "CONCORD_ENRICHMENTS": wanted.enrichments}
    settings = from_env({"CONCORD_DATA": str(data), **chosen})
    async with servers(settings) as complete:
        log = data / "worker.log"
        async with worker(complete, log) as process:
            url = await measure.until_ready(log, process)
            kafka = kafka_of(complete)
            load = Load(kafka, open_store(complete))
            async with load:
                await load.send(50, rate=50)  # connections, caches, the JIT: nobody's first recording is measured
                await _throughput(figures, load, process.pid, wanted.recordings)
                await _two_workers(figures, load, complete, wanted.recordings)
                await _latency(figures, load, url, wanted)
                await _waiting(figures, complete, process.pid, wanted.waiting)
        await _bare(figures, kafka, wanted)
    return figures


async def _throughput(figures: Figures, load: Load, pid: int, count: int) -> None:
    before = cpu_seconds(pid)
    servers_before = cpu_seconds(os.getpid()) - before
    outcome = await load.send(count, rate=None)
    spent = cpu_seconds(pid) - before
    spent_servers = cpu_seconds(os.getpid()) - cpu_seconds(pid) - servers_before
    figures.add(f"{count} recordings, exactly once: recordings a second", f"{count / outcome.seconds:.0f}", "200")
    figures.add("of them lost / announced twice", f"{outcome.lost} / {outcome.twice}", "0 / 0")
    figures.add("CPU per recording: worker", f"{1000 * spent / count:.1f} ms")
    figures.add("CPU per recording: Kafka, PostgreSQL and the load itself", f"{1000 * spent_servers / count:.1f} ms")
    figures.add("resident memory of the worker", f"{resident_mb(pid):.0f} MB")


async def _two_workers(figures: Figures, load: Load, settings: Settings, count: int) -> None:
    log = settings.data / "second.log"
    async with worker(settings, log) as second:
        await measure.until_ready(log, second)
        await load.send(50, rate=50)
        outcome = await load.send(count, rate=None)
    figures.add("with a second worker process: recordings a second", f"{count / outcome.seconds:.0f}", "200")
    figures.add("of them lost / announced twice", f"{outcome.lost} / {outcome.twice}", "0 / 0")
    await load.send(50, rate=10)  # the first worker has its partitions back


async def _latency(figures: Figures, load: Load, url: str, wanted: argparse.Namespace) -> None:
    async with measure.statuses(url) as seen:
        outcome = await load.send(int(wanted.rate * wanted.seconds), rate=wanted.rate, watched=seen)
    p50, p99 = measure.percentiles(outcome.latencies_s)
    figures.add(
        f"added latency at {wanted.rate:.0f}/s, audio.uploaded to persisted: p50", f"{p50 * 1000:.0f} ms", "100 ms"
    )
    figures.add("p99", f"{p99 * 1000:.0f} ms", "300 ms")
    p50, p99 = measure.percentiles(seen.delays_s)
    figures.add("a status is visible over HTTP after its commit: p50", f"{p50 * 1000:.0f} ms")
    figures.add("p99", f"{p99 * 1000:.0f} ms", "100 ms")


async def _waiting(figures: Figures, settings: Settings, pid: int, count: int) -> None:
    idle = await measure.cpu_share(pid, 10)
    memory = resident_mb(pid)
    await measure.fill_outbox(settings, count)
    await asyncio.sleep(3)
    busy = await measure.cpu_share(pid, 10)
    figures.add("CPU of the idle worker", f"{idle:.1%} of a core")
    figures.add(f"with {count} rows waiting in the outbox", f"{busy:.1%} of a core", "the same")
    figures.add("memory that they add to the worker", f"{resident_mb(pid) - memory:+.1f} MB", "0")


async def _bare(figures: Figures, kafka: Kafka, wanted: argparse.Namespace) -> None:
    rate, p50 = await bare.relay(kafka, wanted.recordings)
    figures.add("a bare aiokafka relay over as many hops: recordings a second", f"{rate:.0f}", "the limit")
    figures.add("its latency, unloaded: p50", f"{p50 * 1000:.0f} ms")


def main() -> None:
    """Run, print, write down."""
    wanted = arguments()
    data = Path(tempfile.mkdtemp(prefix="concord-bench-"))
    data.chmod(0o755)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}", flush=True)
    try:
        figures = asyncio.run(run(wanted, data))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    RESULTS.parent.mkdir(exist_ok=True)
    when = time.strftime("%Y-%m-%d")
    RESULTS.write_text(
        f"`make bench`, {when}, {os.cpu_count()} cores, Python {platform.python_version()}.\n\n{figures.table()}\n"
    )


if __name__ == "__main__":
    main()
