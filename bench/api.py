"""`make bench-api`: how fast the HTTP API answers with a million jobs in PostgreSQL, while the pipeline works.

Servers, workers and requests are real; the recognizers answer at once. One worker answers over HTTP (`track`), another
one is the pipeline, as in Compose and Kubernetes. Figures go to bench/results/api.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import asyncpg

from agents.commands.serve import servers
from agents.fleet.environment import from_env
from agents.fleet.servers import dsn_of, kafka_of, open_store
from agents.stages.registry import roles
from bench import event_streams, measure
from bench.__main__ import RECOGNIZERS, Figures, worker
from bench.http_load import Answers, ask, post
from bench.load import Load
from bench.processes import cpu_seconds, resident_mb
from sinks.postgres.migrate import migrate

RESULTS = Path(__file__).parent / "results" / "api.md"
SEED = files("bench") / "api_seed.sql"

#: Tenants among whom the stored jobs are divided; the first is the one that asks.
TENANTS = 20


def arguments() -> argparse.Namespace:
    """What may be set."""
    parser = argparse.ArgumentParser("python -m bench.api", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="stored before (default %(default)s)")
    parser.add_argument("--transcripts", type=int, default=100_000, help="of those, with a transcript")
    parser.add_argument("--rate", type=float, default=2000.0, help="status reads a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which each is measured")
    parser.add_argument("--pipeline", type=float, default=5.0, help="recordings a second meanwhile")
    parser.add_argument("--clients", type=int, default=1000, help="event streams at the same time")
    return parser.parse_args()


async def run(wanted: argparse.Namespace, data: Path) -> Figures:
    """All measurements, one after the other on the same workers."""
    figures = Figures()
    settings = from_env({"CONCORD_DATA": str(data), "CONCORD_RECOGNIZERS": RECOGNIZERS})
    async with servers(settings) as complete:
        await migrate(dsn_of(complete))
        await _seed(dsn_of(complete), wanted)
        log, names = data / "track.log", roles(complete.recognizers, complete.kinds)
        pipeline = [name for name in names if name != "track"]
        async with (
            worker(complete, log, ["track"], CONCORD_INSTANCE="track", **HTTP) as process,
            worker(complete, data / "pipeline.log", pipeline, CONCORD_INSTANCE="pipeline") as beside,
        ):
            url = await measure.until_ready(log, process)
            await measure.until_ready(data / "pipeline.log", beside)
            async with Load(kafka_of(complete), open_store(complete)) as load:
                recordings = await asyncio.gather(*(load.stored() for _ in range(200)))
                await load.send_all(recordings, rate=20)
                await _all(figures, wanted, url, load, process.pid, [job for job, _ in recordings])
            memory = f"{resident_mb(process.pid):.0f}, {resident_mb(beside.pid):.0f} MB"
            figures.add("resident memory at the end: the HTTP worker, the pipeline", memory)
    return figures


async def _all(
    figures: Figures, wanted: argparse.Namespace, url: str, load: Load, pid: int, live: Sequence[str]
) -> None:
    tenant = "tenant-0"
    stored = random.Random(7).sample(range(0, wanted.transcripts, TENANTS), min(2000, wanted.transcripts // TENANTS))
    recordings = asyncio.create_task(_work(load, wanted.pipeline))
    try:
        await asyncio.sleep(5)
        before, began = cpu_seconds(pid), time.monotonic()
        statuses = await ask(
            url, [f"/jobs/{job}/status?tenant=bench" for job in live], rate=wanted.rate, seconds=wanted.seconds
        )
        share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        _add(figures, f"status, {wanted.rate:.0f} a second", statuses, "p99 10 ms")
        figures.add("of that: reads a second, CPU of the worker", f"{statuses.rate:.0f}, {share:.0%} of a core", "2000")
        transcripts = [f"/jobs/{_id(n)}/transcript?tenant={tenant}" for n in stored]
        _add(
            figures,
            "transcript, 100 a second",
            await ask(url, transcripts, rate=100, seconds=wanted.seconds),
            "p99 20 ms",
        )
        for name, query in LISTS.items():
            paths = [f"/tenants/{tenant}/jobs?limit=50{query}"]
            _add(figures, f"list of 50: {name}", await ask(url, paths, rate=20, seconds=5, connections=4), "p99 50 ms")
        posted = await post(url, CONVERSATIONS, [_conversation(n) for n in range(200)], at_once=8)
        _add(figures, "a conversation requested, eight at once", posted, "p99 2000 ms", status=202)
        delays = await event_streams.delays(url, load, clients=wanted.clients, seconds=wanted.seconds)
        p50, p99 = measure.percentiles(delays)
        figures.add(f"{wanted.clients} event streams: an update after its commit, p50", f"{p50 * 1000:.0f} ms")
        figures.add("p99", f"{p99 * 1000:.0f} ms", "200 ms")
    finally:
        recordings.cancel()


#: What the worker for HTTP is told beside what all are told: it takes conversations, too, and never asks for one.
HTTP = {
    "CONCORD_HTTP_CONNECTIONS": "8192",
    "ELEVENLABS_API_KEY": "not-used",
    "SMTP_HOST": "127.0.0.1",
    "SMTP_FROM_EMAIL": "bench@sender.example",
}

#: What is asked of a tenant with 50,000 jobs, by what it is.
LISTS = {
    "the newest": "",
    "in a status": "&status=failed",
    "a filename that none has": "&filename=zzz",
    "a language that none has": "&language=fr",
    "metadata that none has, completed": "&metadata=agent:nobody&status=completed",
}


CONVERSATIONS = "/api/v1/postprocess/conversation"


def _conversation(number: int) -> dict[str, str]:
    return {"email_id": "a@b.example", "account_id": "bench", "conversation_id": f"conv_{number}"}


async def _work(load: Load, rate: float) -> None:
    """Recordings for the pipeline, until cancelled."""
    while True:
        await load.send(max(1, int(rate * 10)), rate=rate)


def _id(number: int) -> str:
    """The id of a stored job, as `api_seed.sql` makes it."""
    return f"00000000-0000-4000-8000-{number:012x}"


def _add(figures: Figures, what: str, answers: Answers, aim: str, *, status: int = 200) -> None:
    p50, p99 = measure.percentiles(answers.seconds)
    wrong = {other: count for other, count in answers.statuses.items() if other != status}
    figures.add(f"{what}: p50 / p99", f"{p50 * 1000:.1f} / {p99 * 1000:.1f} ms", aim)
    if wrong:
        figures.add(f"answers other than {status}", str(wrong), "none")


async def _seed(dsn: str, wanted: argparse.Namespace) -> None:
    connection = await asyncpg.connect(dsn, command_timeout=None)
    began = time.monotonic()
    try:
        for statement in SEED.read_text().split(";\n"):
            if statement.strip():
                text = statement.replace(":jobs", str(wanted.jobs)).replace(":transcripts", str(wanted.transcripts))
                await connection.execute(text.replace(":tenants", str(TENANTS)))
    finally:
        await connection.close()
    print(f"  {wanted.jobs} jobs stored in {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """Run, print, write down."""
    wanted = arguments()
    data = Path(tempfile.mkdtemp(prefix="concord-bench-"))
    data.chmod(0o755)
    about = f"{os.cpu_count()} cores, Python {platform.python_version()}, load before {os.getloadavg()[0]:.1f}"
    print(about, flush=True)
    try:
        figures = asyncio.run(run(wanted, data))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    RESULTS.write_text(f"`make bench-api`, {time.strftime('%Y-%m-%d')}, {about}.\n\n{figures.table()}\n")


if __name__ == "__main__":
    main()
