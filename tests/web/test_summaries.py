"""Summaries over HTTP: of one call, beside its transcript, and what they say of many."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from schemas.jobs.outcome import EnrichmentChange, Outcome, Step
from schemas.jobs.rows import File, file_kind
from schemas.summaries import ActionItem, Coverage, Entity, Participant, Statement, Summary, items_of
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.memory.reading.summaries import MemorySummaryItems
from tests.web.service import BOLT, ROOT, Worker, of_blob
from web.paging import encode_place
from web.resources.summaries.items import SummaryItemLists
from web.resources.summaries.summary import JobSummary

CITED = {"words": ("w0",), "quote": "hello", "speaker": "A", "start_ms": 0, "end_ms": 400}
MADE = Summary(
    kind="summary",
    template="default/v1",
    model="openai/m",
    transcript_version=1,
    topic="A greeting",
    sentiment="positive",
    key_points=(Statement(text="Somebody greets.", **CITED),),
    action_items=(ActionItem(text="Greet back", who="Bob", **CITED),),
    participants=(Participant(name="Ann", label="A", **CITED),),
    entities=(Entity(kind="person", text="Ann", **CITED), Entity(kind="amount", text="hello", **CITED)),
    coverage=Coverage(words=1, words_read=1, parts=1),
)


@pytest.fixture
async def worker():
    database = MemoryDatabase()
    reader, store = MemoryReader(database), MemoryStore()
    resources = [JobSummary(reader, store), SummaryItemLists(MemorySummaryItems(database))]
    async with Worker(database, reader=reader, store=store, resources=resources) as worker:
        yield worker


async def summarised(worker, job_id="j", state="done", made=MADE):
    """A completed job with a summary, or on the way to one."""
    await worker.created(job_id)
    await worker.finished(job_id)
    job = await worker.database.job("acme", job_id)
    outcome = Outcome(
        tenant_id="acme",
        job_id=job_id,
        enrichment=EnrichmentChange(run=1, kind="summary", state=state, error="too dear"),
    )
    worker.database.enrichments.clear()
    if state != "absent":
        from schemas.jobs.enrichment import begun

        rows = begun(job, ("summary",), worker.database.clock())
        worker.database.enrichments |= {("acme", job_id, 1, kind): row for kind, row in rows.items()}
        if state == "done":
            blob = await worker.store.put(
                f"acme/{job_id}/summary.json", made.model_dump_json().encode(), "application/json"
            )
            file = File(tenant_id="acme", job_id=job_id, run=1, kind=file_kind("summary", 1), **of_blob(blob))
            outcome = replace(outcome, files=(file,), summary_items=items_of(made, job))
        if state != "pending":
            await worker.database.commit([Step("summary", uuid4(), outcome)])


async def test_a_summary_shows_its_items_with_their_words(worker):
    await summarised(worker)
    shown = await worker.json("/jobs/j/summary")

    assert (shown["job_id"], shown["run"], shown["topic"], shown["out_of_date"]) == ("j", 1, "A greeting", False)
    assert shown["key_points"][0]["words"] == ["w0"]
    assert shown["coverage"] == {"words": 1, "words_read": 1, "parts": 1}
    assert (await worker.get("/jobs/j/summary", BOLT)).status == 404


async def test_a_summary_of_an_edited_transcript_says_that_it_is_out_of_date(worker):
    await summarised(worker)
    key = ("acme", "j", 1)
    worker.database.transcripts[key] = replace(worker.database.transcripts[key], version=3)

    assert (await worker.json("/jobs/j/summary"))["out_of_date"] is True


@pytest.mark.parametrize(
    ("state", "said"), [("absent", "CONCORD_ENRICHMENTS"), ("pending", "pending"), ("failed", "too dear")]
)
async def test_without_a_summary_the_answer_says_why(worker, state, said):
    await summarised(worker, state=state)
    if state == "pending":
        from schemas.jobs.enrichment import statuses

        rows = {"summary": worker.database.enrichments["acme", "j", 1, "summary"]}
        job = replace(await worker.database.job("acme", "j"), enrichment=statuses(rows))
        worker.database._write_job(("acme", "j"), job, {})
    response = await worker.get("/jobs/j/summary")

    assert response.status == 404
    assert said in (await response.json())["detail"]


async def test_the_transcript_for_programs_has_the_summary_if_it_is_asked_for(worker):
    await summarised(worker)
    blob = await worker.store.put("acme/j/agent_optimized.json", b'{"job_id": "j"}', "application/json")
    key = ("acme", "j", 1)
    row = worker.database.transcripts[key]
    worker.database.transcripts[key] = replace(row, agent_optimized_uri=blob.uri)

    assert await worker.json("/jobs/j/transcript/agent-optimized") == {"job_id": "j"}
    merged = await worker.json("/jobs/j/transcript/agent-optimized?summary=true")
    assert (merged["job_id"], merged["summary"]["topic"]) == ("j", "A greeting")
    worker.database.files.clear()
    assert (await worker.json("/jobs/j/transcript/agent-optimized?summary=true"))["summary"] is None


async def test_items_of_many_calls_are_listed_filtered_and_paged(worker):
    for job_id in ("i", "j"):
        await summarised(worker, job_id)
    actions = await worker.json("/tenants/acme/action-items?who=BOB")
    assert [(one["job_id"], one["text"], one["who"], one["is_current"]) for one in actions["items"]] == [
        ("j", "Greet back", "Bob", True), ("i", "Greet back", "Bob", True)
    ]  # fmt: skip
    assert actions["items"][0]["links"] == {"summary": "/jobs/j/summary?run=1"}
    assert len((await worker.json("/tenants/acme/participants?name=ann&job=i"))["items"]) == 1
    first = await worker.get("/tenants/acme/entities?limit=3")
    page = await first.json()
    rest = await worker.json(f"/tenants/acme/entities?limit=3&cursor={page['next']}")
    assert [one["text"] for one in page["items"] + rest["items"]] == ["Ann", "hello"] * 2
    assert page["next"] in first.headers["Link"]
    assert rest["next"] is None
    assert [one["label"] for one in (await worker.json("/tenants/acme/entities?kind=amount"))["items"]] == [
        "amount"
    ] * 2


async def test_items_are_the_tenants_own_and_wrong_cursors_are_refused(worker):
    await summarised(worker)

    assert (await worker.get("/tenants/acme/entities", BOLT)).status == 404
    assert len((await worker.json("/tenants/acme/entities", ROOT))["items"]) == 2
    early = encode_place(["0001-01-01T00:00:00+14:00", "a", 0])
    for cursor in ("x", "WzFd", "WyJ4IiwiYSIsMF0", early):
        assert (await worker.get(f"/tenants/acme/entities?cursor={cursor}")).status == 400
    assert (await worker.get("/tenants/acme/entities?kind=colour")).status == 400
