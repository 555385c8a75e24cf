"""What comes after a transcript: an hour's call made into a document, a summary, an index and a report; and many jobs
indexed that were completed before there was an index.

    python -m bench.after_transcript [--jobs N] [--report FILE]

The stages' own code runs here on a PostgreSQL and a folder of its own, without Kafka; the language model is a script
that answers at once, so that what is measured is all but the model's time. The second part runs in a process of its
own: what it finds, begins, makes and commits is what a worker does, and its memory that of a worker without Kafka's
clients (some 100 MB).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import orjson

from agents.asr.rate_limit import ProviderLimiter
from agents.embedded.postgres import EmbeddedPostgres
from agents.llm.texts.questions import TextQuestions
from agents.llm.texts.scripted import ScriptedTexts
from agents.llm.texts.summaries import Summarizer
from agents.llm.texts.titles import Titler
from agents.reports.rendering import Renderer
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.enrichments.document import Document
from agents.stages.enrichments.enrichment import Enriched
from agents.stages.enrichments.index import Index
from agents.stages.enrichments.report import Reports
from agents.stages.enrichments.summary import Summaries
from agents.upkeep.earlier_transcripts import begin_some
from bench.processes import cpu_seconds, resident_mb
from schemas import blob_names
from schemas.accounts.settings import AccountSettings
from schemas.events.job import StepState
from schemas.jobs.outcome import EnrichmentChange, Outcome, Progress, Step
from schemas.jobs.rows import Job, Transcript
from schemas.rendering.segments import segments, speakers
from schemas.words import Reconciliation, adapter
from sinks.accounts import Accounts
from sinks.blobs.local import LocalStore
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate

#: An hour's call of the shared corpora, and one of some minutes.
HOUR, MINUTES = "4344866", "day1_consultation10"
TENANT: Final = "bench"

#: Tokens of a part that the model reads at once, as by default.
PART: Final = 24_000


def answer(prompt: Any) -> dict[str, Any]:
    """What the scripted model says of any part of a call: ten items that cite what was said, or a title."""
    if prompt.schema.__name__ == "CallTitle":
        return {"title": "A call", "description": "Somebody calls."}
    spoken = json.loads(prompt.content)["utterances"]
    cited = [{"segment": one["id"], "quote": " ".join(one["text"].split()[:5])} for one in spoken[:10]]
    points = [{**one, "text": one["quote"]} for one in cited]
    return {
        "topic": "A call",
        "sentiment": "neutral",
        "key_points": points,
        "action_items": [{**one, "who": None, "when": None} for one in points],
        **{name: [] for name in ("decisions", "open_questions", "participants", "entities")},
    }


async def keep(database: Postgres, store: LocalStore, job_id: str, decided: Reconciliation) -> Job:
    """A completed job with this transcript, as `persist` leaves it, without enrichments."""
    from agents.stages.persist import agent_optimized

    names = (TENANT, job_id, 1)
    job = Job(tenant_id=TENANT, job_id=job_id, filename="call.wav", audio_uri="file:///bench", status="persisting")
    job = replace(job, metadata={}, duration_ms=decided.words[-1].end_ms or 0, completed_at=datetime.now(UTC))
    raw = await store.put(
        blob_names.raw_transcript(*names), adapter(Reconciliation).dump_json(decided), "application/json"
    )
    optimized = orjson.dumps(agent_optimized(job, decided))
    agent = await store.put(blob_names.agent_optimized(*names), optimized, "application/json")
    transcript = Transcript(
        tenant_id=TENANT,
        job_id=job_id,
        run=1,
        text=decided.text,
        words=len(decided.words),
        speakers=speakers(decided.words),
        segments=segments(decided.words),
        language="en",
        confidence=0.9,
        agreement=0.9,
        method="calibrated",
        provider_confidences={},
        reconciliation_notes=[],
        quality={},
        raw_transcript_uri=raw.uri,
        agent_optimized_uri=agent.uri,
        duration_ms=job.duration_ms,
    )
    progress = Progress(run=1, status="completed", stage="persist", step=StepState(state="done"))
    of = {"tenant_id": TENANT, "job_id": job_id}
    await database.commit([Step("intake", uuid4(), Outcome(**of, create=job))])
    await database.commit([Step("persist", uuid4(), Outcome(**of, progress=progress, transcript=transcript))])
    stored = await database.job(TENANT, job_id)
    if stored is None:
        raise SystemExit("the job was not stored")
    return stored


async def commit(database: Postgres, job: Job, kind: str, made: Enriched, generation: int = 1) -> None:
    """Commit what was made, as the stage does."""
    change = EnrichmentChange(run=1, kind=kind, state="done", result={}, generation=generation)
    outcome = Outcome(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        enrichment=change,
        index=made.index,
        files=made.files,
        usage=made.usage,
        summary_items=made.summary_items,
    )
    [written] = await database.commit([Step(kind, uuid4(), outcome)])
    if written is None or not written.applied:
        raise SystemExit(f"{kind} was refused")


async def hour(database: Postgres, store: LocalStore, decided: Reconciliation) -> list[str]:
    """The rows of a table: what each enrichment of an hour's call takes."""
    job = await keep(database, store, "hour", decided)
    accounts, renderer = Accounts(database, AccountSettings()), Renderer()
    tasks = LeasedTasks(database, "bench", 1)
    limiter = ProviderLimiter(database, "openai")
    questions = TextQuestions(ScriptedTexts(answer), store, database, limiter, accounts, 10**9)
    makes: dict[str, Callable[[Job], Awaitable[Enriched | None]]] = {
        "document": Document(store, database, accounts, Titler(questions, PART, 0.7)).make,
        "summary": Summaries(store, database, accounts, Summarizer(questions, PART)).make,
        "index": Index(store, database, accounts).make,
        "report": Reports(store, database, renderer, tasks).make,
    }
    rows, whole, whole_cpu = [], 0.0, 0.0
    # The report twice: for the first, the process that typesets is started.
    for kind, make in [*makes.items(), ("report", makes["report"])]:
        current = await database.job(TENANT, job.job_id)
        status = current.enrichment.get(kind) if current else None
        generation = status.generation + 1 if status else 1
        begun = EnrichmentChange(run=1, kind=kind, state="pending", begins=True, generation=generation)
        await database.commit([Step("x", uuid4(), Outcome(tenant_id=TENANT, job_id=job.job_id, enrichment=begun))])
        current = await database.job(TENANT, job.job_id)
        began, cpu = time.perf_counter(), cpu_seconds(os.getpid())
        made = None
        while made is None and current is not None:
            made = await make(current)
        if made is not None:
            await commit(database, job, kind, made, generation)
        seconds, used = time.perf_counter() - began, cpu_seconds(os.getpid()) - cpu
        rows.append(f"| {kind}{', again' if generation > 1 else ''} | {seconds:.2f} | {used:.2f} |")
        whole, whole_cpu = whole + seconds, whole_cpu + used
    await renderer.close()
    await tasks.close()
    return [*rows, f"| all, one behind the other | {whole:.2f} | {whole_cpu:.2f} |"]


async def worker(dsn: str, folder: str) -> None:
    """Index whatever was never indexed, and print what that took."""
    pool = await connect_pool(dsn)
    database, store = Postgres(pool), LocalStore(Path(folder))
    index = Index(store, database, Accounts(database, AccountSettings()))
    began, most, done = time.perf_counter(), 0.0, 0
    while await begin_some(database):
        rows = await pool.fetch("SELECT job_id FROM enrichments WHERE kind = 'index' AND state = 'pending'")
        for row in rows:
            job = await database.job(TENANT, row["job_id"])
            if job is not None:
                await commit(database, job, "index", await index.make(job))
                done += 1
        most = max(most, resident_mb(os.getpid()))
    print(json.dumps({"jobs": done, "seconds": time.perf_counter() - began, "mb": most}))
    await pool.close()


async def indexed(dsn: str, folder: Path) -> str:
    """What indexing all jobs took, in a process of its own."""
    command = [sys.executable, "-m", "bench.after_transcript", "--worker", dsn, str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    took = json.loads(output)
    return (
        f"{took['jobs']:,} jobs of before the index, of ten minutes each: indexed in {took['seconds']:.0f} s, "
        f"{1000 * took['seconds'] / max(1, took['jobs']):.0f} ms each, by a process of {took['mb']:.0f} MB at most."
    )


async def run(jobs: int, report: Path | None) -> None:
    """Measure both, and report."""
    from bench.search_recall import calls

    decided = dict(calls({HOUR, MINUTES}))
    with tempfile.TemporaryDirectory(prefix="concord-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "store").mkdir()
        server = EmbeddedPostgres(folder)
        await server.start()
        try:
            dsn = await server.create_database("after")
            await migrate(dsn)
            pool = await connect_pool(dsn)
            database, store = Postgres(pool), LocalStore(folder / "store", durable=False)
            rows = await hour(database, store, decided[HOUR])
            for n in range(jobs):
                await keep(database, store, f"job-{n}", decided[MINUTES])
            lines = [
                f"A call of {len(decided[HOUR].words):,} words, a load of {os.getloadavg()[0]:.0f} on two cores.",
                "",
                "| made | seconds without the model's | of a processor |",
                "| --- | --- | --- |",
                *rows,
                "",
                await indexed(dsn, folder / "store"),
            ]
            text = "\n".join(lines) + "\n"
            print(text)
            if report is not None:
                report.write_text(f"# After the transcript\n\n{text}")
            await pool.close()
        finally:
            server.kill()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs to be indexed (10,000)")
    parser.add_argument("--report", type=Path, help="a file for the result")
    parser.add_argument("--worker", nargs=2, metavar=("DSN", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        asyncio.run(worker(*arguments.worker))
    else:
        asyncio.run(run(arguments.jobs, arguments.report))


if __name__ == "__main__":
    main()
