"""What every database must do with items of summaries, budgets, and the words that stages read."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from schemas.corrections.rows import TranscriptEdit, TranscriptVersion, dump_words
from schemas.jobs.outcome import EnrichmentChange, Outcome, Progress, Step
from schemas.jobs.rows import run_fields
from schemas.summaries import ActionItem, Coverage, Entity, Participant, Summary, items_of
from schemas.transcript_words import TranscriptWord
from sinks.memory.reading.summaries import MemorySummaryItems
from sinks.ports.providers.usage import TokensUsed
from sinks.ports.reading.summaries import ItemFilter, ItemPlace
from sinks.postgres.reader import Reader
from sinks.postgres.reading.summaries import PostgresSummaryItems
from tests.contract.databases.cases import created, job, transcript, used

CITED = {"words": ("w1", "w2"), "quote": "Ada will pay", "speaker": "A", "start_ms": 10, "end_ms": 900}


def summary(version: int = 1, **lists) -> Summary:
    return Summary(
        kind="summary",
        template="default/v1",
        transcript_version=version,
        coverage=Coverage(words=2, words_read=2, parts=1),
        **lists,
    )


FULL = summary(
    action_items=(
        ActionItem(text="Pay", who="Ada  LOVELACE", when="Friday", **CITED),
        ActionItem(text="Call", disputed=True, **CITED),
    ),
    participants=(Participant(name="Ada", label="A", **CITED),),
    entities=(Entity(kind="amount", text="40 €", **CITED), Entity(kind="person", text="Eve", **CITED)),
)


@pytest.fixture
def items(under_test):
    """The port of what people ask."""
    if hasattr(under_test, "pool"):
        return PostgresSummaryItems(Reader(under_test.pool))
    return MemorySummaryItems(under_test.database)


async def completed(under_test, job_id: str = "j", tenant: str = "t") -> None:
    of = job(job_id, tenant)
    await under_test.database.commit([created(of)])
    outcome = Outcome(
        tenant_id=tenant,
        job_id=job_id,
        progress=Progress(run=1, status="completed"),
        transcript=transcript(job_id, tenant, 1),
        new_enrichments=("summary",),
    )
    await under_test.database.commit([Step("persist", uuid4(), outcome)])


async def summarised(under_test, made: Summary = FULL, job_id: str = "j", tenant: str = "t") -> bool:
    of = job(job_id, tenant)
    change = EnrichmentChange(run=1, kind="summary", state="done", transcript_version=made.transcript_version)
    outcome = Outcome(tenant_id=tenant, job_id=job_id, enrichment=change, summary_items=items_of(made, of))
    [written] = await under_test.database.commit([Step("summary", uuid4(), outcome)])
    return written.applied


async def listed(items, kind: str, tenant: str = "t", limit: int = 50, **more):
    found = await items.summary_items(tenant, ItemFilter(kind=kind, **more), limit)
    return [one.item.text for one in found]


async def edited(under_test) -> None:
    """The transcript of the first job gets its second version."""
    words = [TranscriptWord("w1", "Ada", 10, 400, "A", 1.0), TranscriptWord("v2-0", "paid")]
    row = transcript("j", "t", 1)
    version = TranscriptVersion(
        **run_fields(row), version=2, author="k", reason=None, changed_words=1, word_count=2,
        agent_optimized_uri="s3://b/2", words=dump_words(words),
    )  # fmt: skip
    edit = TranscriptEdit(version=version, transcript=replace(row, version=2))
    [written] = await under_test.database.commit([Step("edit", uuid4(), Outcome(tenant_id="t", job_id="j", edit=edit))])
    assert written.applied


async def test_items_are_found_by_kind_text_label_and_job(under_test, items):
    await completed(under_test)
    await completed(under_test, "k")
    await summarised(under_test)
    await summarised(under_test, summary(entities=(Entity(kind="person", text="EVE", **CITED),)), "k")

    assert await listed(items, "action_item") == ["Pay", "Call"]
    assert await listed(items, "action_item", lookup="ada lovelace") == ["Pay"]
    assert await listed(items, "entity") == ["EVE", "40 €", "Eve"]
    assert await listed(items, "entity", lookup="eve") == ["EVE", "Eve"]
    assert await listed(items, "entity", label="amount") == ["40 €"]
    assert await listed(items, "entity", job_id="k") == ["EVE"]
    assert await listed(items, "participant") == ["Ada"]
    [found] = await items.summary_items("t", ItemFilter(kind="action_item", lookup=""), 9)
    assert (found.item.disputed, found.item.words, found.is_current) == (True, ["w1", "w2"], True)


async def test_items_are_paged_in_an_order_that_holds(under_test, items):
    for job_id in ("a", "b", "c"):
        await completed(under_test, job_id)
        await summarised(under_test, job_id=job_id)
    whole = [(one.item.job_id, one.item.number) for one in await items.summary_items("t", ItemFilter(kind="entity"), 9)]
    paged, place = [], None
    while page := await items.summary_items("t", ItemFilter(kind="entity"), 2, place):
        paged += [(one.item.job_id, one.item.number) for one in page]
        place = ItemPlace(page[-1].item.created_at, page[-1].item.job_id, page[-1].item.number)

    assert paged == whole == [(job_id, number) for job_id in ("c", "b", "a") for number in (0, 1)]


async def test_another_tenants_items_do_not_exist(under_test, items):
    await completed(under_test, tenant="u")
    await summarised(under_test, tenant="u")

    assert await listed(items, "entity") == []
    assert await listed(items, "entity", "u") == ["40 €", "Eve"]


async def test_a_summary_replaces_the_items_of_the_one_before_and_is_old_after_an_edit(under_test, items):
    await completed(under_test)
    await summarised(under_test)
    await edited(under_test)
    assert [one.is_current for one in await items.summary_items("t", ItemFilter(kind="participant"), 9)] == [False]

    assert not await summarised(under_test)
    assert await summarised(under_test, summary(2, participants=(Participant(name="Eve", **CITED),)))
    assert await listed(items, "participant") == ["Eve"]
    assert await listed(items, "entity") == []
    assert [one.is_current for one in await items.summary_items("t", ItemFilter(kind="participant"), 9)] == [True]


async def test_items_go_with_their_job(under_test, items):
    await completed(under_test)
    await summarised(under_test)
    await under_test.database.begin_deletion(("t", "j"), "somebody")

    assert await listed(items, "entity") == []


async def test_the_words_of_a_version_are_those_of_the_run_or_of_its_edit(under_test):
    database = under_test.database
    assert await database.words_of_version("t", "j", 1, 1) is None
    await completed(under_test)
    await edited(under_test)
    first, second = [await database.words_of_version("t", "j", 1, version) for version in (1, 2)]

    assert (first.raw_transcript_uri, first.language, first.edited) == ("s3://b/raw", "en", None)
    assert [word.text for word in second.edited] == ["Ada", "paid"]
    assert second.edited[0].id == "w1"


async def test_tokens_are_added_up_for_a_job_and_for_its_tenants_month(under_test):
    tokens = "total_tokens"
    rows = [
        used(tokens, 5), used(tokens, 7, ref="2", run=2, provider="openai"), used(quantity=100, ref="3"),
        used(tokens, 11, ref="4", job_id="k"), used(tokens, 13, ref="5", tenant_id="u"),
    ]  # fmt: skip
    await under_test.database.record_usage(rows)

    assert await under_test.database.tokens_used("t", "j") == TokensUsed(12, 23)
    assert await under_test.database.tokens_used("t", "none") == TokensUsed(0, 23)
    assert await under_test.database.tokens_used("v", "j") == TokensUsed(0, 0)
