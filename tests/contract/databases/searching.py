"""Passages of transcripts that the tests of the search index share."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from uuid import uuid4

from schemas.events.job import StepState
from schemas.jobs.outcome import EnrichmentChange, Outcome, Progress, Step
from schemas.search.chunks import Chunk, TranscriptIndex, Utterance, text_hash
from schemas.summaries import SummaryItem, folded
from tests.contract.databases.cases import created, job

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def chunk(text: str, number: int = 0, job_id: str = "j", tenant: str = "t", **more) -> Chunk:
    fields = {
        "tenant_id": tenant,
        "job_id": job_id,
        "run": 1,
        "number": number,
        "transcript_version": 1,
        "text": text,
        "content": text,
        "heard": "",
        "dictionary": "english",
        "hash": text_hash(text),
        "start_ms": 0,
        "end_ms": 900,
        "speakers": ["A"],
        "recognizers": ["one", "two"],
        "utterances": [asdict(Utterance(text=text, speaker="A", start_ms=0, end_ms=900, words=[f"w{10 * number}+3"]))],
        "alternatives": [],
        "created_at": NOON,
    }
    return Chunk(**fields | more)


def indexed(*chunks: Chunk, version: int = 1) -> Step:
    first = chunks[0]
    owner = {"tenant_id": first.tenant_id, "job_id": first.job_id, "run": first.run}
    change = EnrichmentChange(run=first.run, kind="index", state="done", transcript_version=version)
    index = TranscriptIndex(**owner, transcript_version=version, chunks=chunks)
    outcome = Outcome(tenant_id=first.tenant_id, job_id=first.job_id, enrichment=change, index=index)
    return Step("index", uuid4(), outcome)


async def summarized(database, job_id: str, sentiment: str, entity: str) -> None:
    """A job's summary, made after its index."""
    owner = {"tenant_id": "t", "job_id": job_id, "run": 1}
    item = SummaryItem(
        **owner, kind="entity", number=0, transcript_version=1, text=entity, lookup=folded(entity), quote=entity
    )
    begun = EnrichmentChange(run=1, kind="summary", state="pending", begins=True)
    done = EnrichmentChange(run=1, kind="summary", state="done", result={"sentiment": sentiment})
    names = {"tenant_id": "t", "job_id": job_id}
    await database.commit([Step("summary", uuid4(), Outcome(**names, enrichment=begun))])
    await database.commit([Step("summary", uuid4(), Outcome(**names, enrichment=done, summary_items=(item,)))])


async def keep(database, *chunks: Chunk, **more) -> None:
    """A job, completed, with this index."""
    owner = {"tenant_id": chunks[0].tenant_id, "job_id": chunks[0].job_id}
    progress = Progress(run=1, status="completed", stage="persist", step=StepState(state="done"))
    completed = Outcome(**owner, progress=progress, new_enrichments=("index",))
    await database.commit([created(job(owner["job_id"], owner["tenant_id"], status="persisting", **more))])
    await database.commit([Step("persist", uuid4(), completed)])
    await database.commit([indexed(*chunks)])
