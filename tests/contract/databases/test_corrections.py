"""Versions of transcripts and the review queue, on PostgreSQL and on the double."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from schemas import topics
from schemas.corrections.rows import ReviewChoice, ReviewItem, TranscriptEdit, TranscriptVersion
from schemas.events.transcript import TranscriptEdited
from schemas.jobs.outcome import Later, Outcome, Progress, Step
from schemas.jobs.rows import File, Job, Transcript
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.ports.corrections.review import ReviewCursor, Reviewer, ReviewFilter
from sinks.postgres.reader import Reader
from tests.contract.databases.cases import created, job
from tests.contract.databases.test_reads import transcript

WORDS = [["w0", "Zoë", 0, 300, "A", 0.5, True], ["e2.1", "\u6771", None, None, None, None, False]]


@pytest.fixture
async def stored(under_test):
    """A database with a job of a tenant that is completed, and what reads it."""
    database = under_test.database
    for tenant in ("acme", "bolt"):
        await database.commit([created(job("j", tenant)), completed(tenant)])
    return database, MemoryReader(database) if isinstance(database, MemoryDatabase) else Reader(under_test.pool)


def again(ended: Job) -> Job:
    return replace(ended, run=2, status="transcribing", completed_at=None)


def completed(tenant="acme", items=3, run=1) -> Step:
    progress = Progress(run=run, status="completed", stage="persist")
    review = tuple(item(n, tenant) for n in range(items))
    outcome = Outcome(
        tenant_id=tenant,
        job_id="j",
        progress=progress,
        transcript=transcript("j", tenant, run),
        review=review,
        new_enrichments=("document",),
    )
    return Step("persist", uuid4(), outcome)


def item(n: int, tenant="acme", **more) -> ReviewItem:
    values = {
        "tenant_id": tenant,
        "id": f"{tenant}-{n}",
        "job_id": "j",
        "run": 1,
        "start_ms": 100 * n,
        "end_ms": 100 * n + 50,
        "speaker": None,
        "probability": 0.5,
        "doubt": float(n),
        "before": "my name is",
        "after": "",
        "slots": [f"w{2 * n}", f"w{2 * n + 1}"],
        "readings": [{"text": "Meyer", "providers": ["a"], "words": [["w0", "Meyer", None, 5]]}],
    }
    return ReviewItem(**values | more)


def edit(version=2, *, tenant="acme", run=1, later=True, text="Zoë", **more) -> Step:
    """An edit that makes this version."""
    owner = {"tenant_id": tenant, "job_id": "j", "run": run}
    uri = f"s3://b/edit-{version}"
    row = TranscriptVersion(
        **owner,
        version=version,
        author="key_1",
        reason=None,
        changed_words=1,
        word_count=2,
        agent_optimized_uri=uri,
        words=WORDS,
    )
    after: Transcript = replace(
        transcript("j", tenant, run), text=text, words=2, version=version, agent_optimized_uri=uri
    )
    event = TranscriptEdited(
        **owner, version=version, author="key_1", changed_words=1, word_count=2, agent_optimized_uri=uri
    )
    file = File(**owner, kind=f"agent_optimized.v{version}", uri=uri, size_bytes=1, content_type="x/y", sha256="0" * 64)
    outcome = Outcome(
        tenant_id=tenant,
        job_id="j",
        edit=TranscriptEdit(version=row, transcript=after, **more),
        files=(file,),
        later=(Later(topics.EDITED.name, event),) if later else (),
        audit="edited",
        author="key_1",
    )
    return Step("edit", uuid4(), outcome)


async def test_an_edit_makes_a_version_and_reopens_enrichments(stored, under_test):
    database, reader = stored
    [written] = await database.commit([edit()])

    row = await reader.version("acme", "j", 1, 2)
    assert (row.words, row.author, row.edited_at) == (WORDS, "key_1", written.edit.version.edited_at)
    assert [(one.version, one.words) for one in await reader.versions("acme", "j", 1)] == [(2, [])]
    now = await reader.transcript("acme", "j")
    assert (now.text, now.version, now.agent_optimized_uri) == ("Zoë", 2, "s3://b/edit-2")
    assert await database.transcript_uri("acme", "j", 1) == "s3://b/edit-2"
    edited = await database.job("acme", "j")
    assert (edited.status, edited.transcript_version) == ("completed", 2)
    document = edited.enrichment["document"]
    assert (document.state, document.transcript_version) == ("pending", 2)
    events = [topic for topic, _ in await under_test.outbox()]
    assert (events.count("transcript.edited"), events[-1]) == (1, "job.status")
    assert "agent_optimized.v2" in [file.kind for file in await reader.files("acme", "j")]


async def test_an_edit_of_an_older_version_writes_nothing(stored, under_test):
    database, reader = stored
    await database.commit([edit()])
    before = await under_test.outbox()
    [late] = await database.commit([edit(text="late")])
    [unknown] = await database.commit([edit(4)])
    [other_run] = await database.commit([edit(run=2)])

    assert [written.applied for written in (late, unknown, other_run)] == [False] * 3
    assert (await reader.transcript("acme", "j")).text == "Zoë"
    assert len(await reader.versions("acme", "j", 1)) == 1
    assert await under_test.outbox() == before


async def test_of_two_edits_in_one_batch_the_second_is_refused(stored):
    database, reader = stored
    results = await database.commit([edit(text="first"), edit(text="second"), edit(3, text="third")])

    assert [written.applied for written in results] == [True, False, True]
    assert (await reader.transcript("acme", "j")).text == "third"
    assert [one.version for one in await reader.versions("acme", "j", 1)] == [3, 2]


async def test_an_edit_of_a_run_that_is_not_completed_is_refused(stored):
    database, _ = stored
    again = job("j", "acme", run=2)
    await database.commit([Step("intake", uuid4(), Outcome(tenant_id="acme", job_id="j", begin=again))])

    assert not (await database.commit([edit()]))[0].applied
    assert not (await database.commit([edit(run=2)]))[0].applied


async def test_the_blob_of_an_edit_is_kept_and_that_of_a_refused_one_is_an_orphan(stored):
    database, _ = stored
    for version in (2, 3):
        await database.intend_blob(("acme", "j"), f"s3://b/edit-{version}")
    await database.commit([edit()])
    await database.commit([edit(9), replace(edit(3), outcome=replace(edit(3).outcome, later=()))])
    assert await database.orphan_blobs(3600, 3600, 10) == []

    await database.intend_blob(("acme", "j"), "s3://b/edit-9")
    await database.commit([edit(9)])
    assert await database.orphan_blobs(3600, 3600, 10) == ["s3://b/edit-9"]


async def test_an_enrichment_of_an_older_version_changes_nothing(stored):
    from schemas.jobs.outcome import EnrichmentChange

    database, _ = stored
    await database.commit([edit()])
    done = [
        EnrichmentChange(run=1, kind="document", state="done", transcript_version=version, result={"of": version})
        for version in (1, 2)
    ]
    steps = [Step("document", uuid4(), Outcome(tenant_id="acme", job_id="j", enrichment=one)) for one in done]

    assert [(await database.commit([one]))[0].applied for one in steps] == [False, True]
    document = (await database.job("acme", "j")).enrichment["document"]
    assert (document.state, document.transcript_version) == ("done", 2)


async def test_items_come_most_doubtful_first_in_pages_and_by_filter(stored):
    database, reader = stored
    first = await reader.review_items("acme", ReviewFilter(), 2)
    rest = await reader.review_items("acme", ReviewFilter(), 2, ReviewCursor(first[-1].doubt, first[-1].id))

    assert [one.id for one in first + rest] == ["acme-2", "acme-1", "acme-0"]
    assert replace(first[0], created_at=None) == item(2)
    assert await reader.review_items("acme", ReviewFilter(state="done"), 9) == []
    assert await reader.review_items("acme", ReviewFilter(job_id="other"), 9) == []
    await database.assign_item("acme", "acme-1", "ann", "key_1")
    assert [one.id for one in await reader.review_items("acme", ReviewFilter(assignee="ann"), 9)] == ["acme-1"]


async def test_a_later_run_takes_the_place_of_what_is_open_about_earlier_ones(stored):
    database, reader = stored
    await database.acting_as("acme").skip_item("acme", "acme-0", "key_1")
    begun = await database.job("acme", "j")
    await database.commit([Step("intake", uuid4(), Outcome(tenant_id="acme", job_id="j", begin=again(begun)))])
    assert len(await reader.review_items("acme", ReviewFilter(), 9)) == 2
    await database.commit([completed(run=2, items=0)])

    assert await reader.review_items("acme", ReviewFilter(), 9) == []
    assert [one.id for one in await reader.review_items("acme", ReviewFilter(state="skipped"), 9)] == ["acme-0"]
    assert len(await reader.review_items("bolt", ReviewFilter(), 9)) == 3


async def test_items_are_skipped_and_assigned_by_their_tenant_only(stored):
    database, reader = stored

    assert (await database.acting_as("acme").skip_item("acme", "acme-0", "key_1")).state == "skipped"
    assert (await database.acting_as("acme").assign_item("acme", "acme-1", "ann", "key_1")).assignee == "ann"
    assert await database.acting_as("bolt").skip_item("bolt", "acme-2", "key_2") is None
    assert await database.acting_as("bolt").assign_item("bolt", "acme-2", "x", "key_2") is None
    assert await reader.review_item("bolt", "acme-2") is None
    assert (await reader.review_item("acme", "acme-0")).reviewer == "key_1"


async def test_an_edit_settles_what_is_open_about_its_words(stored):
    database, reader = stored
    await database.skip_item("acme", "acme-2", "key_1")
    await database.commit([edit(decided=("w1", "w5", "w99"))])

    states = {one.id: one.state for n in range(3) if (one := await reader.review_item("acme", f"acme-{n}"))}
    assert states == {"acme-0": "done", "acme-1": "open", "acme-2": "done"}
    assert (await reader.review_item("bolt", "bolt-0")).state == "open"
    assert await database.skip_item("acme", "acme-0", "key_1") is None


def chosen(n: int, reviewer="ann", choice=0, **more) -> ReviewChoice:
    return ReviewChoice(tenant_id="acme", item=f"acme-{n}", reviewer=reviewer, job_id="j", run=1, choice=choice, **more)


async def test_choices_are_kept_by_reviewer_and_their_agreement_counted(stored):
    database, reader = stored
    empty = await reader.review_progress("bolt")
    choices = [chosen(0), chosen(0, "bob"), chosen(1, choice=1), chosen(1, "bob", None, text="Maier"), chosen(0)]
    for version, choice in enumerate(choices, 2):
        await database.commit([edit(version, choice=choice, decided=tuple(item(int(choice.item[-1])).slots))])
    await database.skip_item("acme", "acme-2", "cleo")

    progress = await reader.review_progress("acme")
    assert (empty.open, empty.reviewers, empty.decided_by_several) == (3, [], 0)
    assert (progress.open, progress.assigned, progress.done, progress.skipped) == (0, 0, 2, 1)
    assert progress.reviewers == [Reviewer("ann", 2, 0), Reviewer("bob", 2, 0), Reviewer("cleo", 0, 1)]
    assert (progress.decided_by_several, progress.decided_alike) == (2, 1)
    last = await reader.review_item("acme", "acme-1")
    assert (last.state, last.reviewer, last.choice, last.text) == ("done", "bob", None, "Maier")
    assert last.decided_at is not None


async def test_a_refused_choice_is_not_kept(stored):
    database, reader = stored
    await database.commit([edit(7, choice=chosen(0), decided=("w0",))])

    assert (await reader.review_item("acme", "acme-0")).state == "open"
    assert (await reader.review_progress("acme")).reviewers == []


async def test_edits_of_a_tenant_change_its_own_transcripts_only(stored):
    database, reader = stored
    assert (await database.acting_as("acme").commit([edit(choice=chosen(0), decided=("w0",))]))[0].applied

    assert (await reader.transcript("bolt", "j")).version == 1
    assert await reader.version("bolt", "j", 1, 2) is None
    assert (await reader.review_item("acme", "acme-0")).state == "done"


async def test_the_audit_log_says_who_edited_and_who_skipped(stored, under_test):
    database, _ = stored
    await database.commit([edit()])
    await database.skip_item("acme", "acme-0", "ann")

    await database.assign_item("acme", "acme-1", None, "bob")

    entries = [(entry.step, entry.what, entry.author, entry.error) for entry in await under_test.audit()]
    assert entries[-3:] == [
        ("edit", "edited", "key_1", None),
        ("review", "skipped", "ann", None),
        ("review", "assigned", "bob", None),
    ]
