"""Deletions: a job that is deleted is gone at once, stays gone whatever was in flight, and leaves a true receipt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4, uuid5

import asyncpg
import pytest

from schemas import topics
from schemas.accounts.settings import AccountSettings
from schemas.conversations.rows import IssuedUrl
from schemas.corrections.rows import ReviewChoice
from schemas.corrections.voices import SpeakerVoice
from schemas.envelope import Envelope, Record
from schemas.events.asr import AsrRequest
from schemas.events.audio import AudioUploaded
from schemas.events.job import JobFailed
from schemas.ids import NAMESPACE
from schemas.jobs.deletion import KEPT, Deletion
from schemas.jobs.outcome import Failure, Later, Outcome, Progress, RequestChange, Step, failed_upload
from schemas.jobs.rows import File
from schemas.mail.rows import Mail
from schemas.messages import Message
from schemas.search.chunks import EmbeddingWork
from schemas.webhooks.rows import Endpoint
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.ports.api.idempotency import Answer
from sinks.ports.providers.strays import Stray
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.reader import Reader
from sinks.postgres.upkeep.deletions import ERASED, WITH_THE_JOB
from tests.contract.databases import cases
from tests.contract.databases.cases import answer, created, direct_upload, job, moved, poll, used
from tests.contract.databases.searching import chunk, indexed
from tests.contract.databases.test_corrections import edit, item
from tests.contract.databases.test_summaries import summarised
from tests.web.service import transcript

KEY = ("t", "j")
STATUS, FAILED, PERSISTED = topics.STATUS.name, topics.FAILED.name, topics.PERSISTED.name

#: Every table with a job's rows.
JOB_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND 2 = (
    SELECT count(*) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attname IN ('tenant_id', 'job_id') AND NOT a.attisdropped)"""


def blob(run: int = 1) -> File:
    of = {"tenant_id": "t", "job_id": "j", "run": run, "kind": "original", "uri": "file:///t/j/original.wav"}
    return File(**of, size_bytes=7, content_type="audio/wav", sha256="0")


def of_run(data, *, raw: Message | None = None, **outcome) -> Step:
    """A step whose event belongs to a run, or is an upload."""
    envelope = Envelope(uuid4(), "x", data, Record("x", 0, 0, None, b"{}"))
    raws = ((raw, 0.0),) if raw else ()
    return Step("x", envelope.id, Outcome(tenant_id="t", job_id="j", raw=raws, **outcome), envelope)


def request(run: int = 1) -> AsrRequest:
    return AsrRequest(tenant_id="t", job_id="j", run=run, provider="a", audio_uri="file:///a.wav")


def retry() -> Message:
    return Message(uuid4(), "x.due", b"j", b"{}", (), "t", "j", 1)


async def completed(database) -> None:
    await database.commit([created(job(reference="r", status="transcribing"), "a", later=(poll("j", "a"),))])
    text = replace(transcript("j", "t", "file:///raw"), run=1)
    await database.commit([replace(moved("completed"), outcome=replace(moved("completed").outcome, transcript=text))])
    await database.commit([Step("x", uuid4(), Outcome(tenant_id="t", job_id="j", files=(blob(),), usage=(used(),)))])


async def deleted(database, key) -> Deletion:
    """Begin a deletion, and make its first pass."""
    await database.begin_deletion(key, "key_1")
    [claimed] = await database.due_deletions(10, 60.0)
    return await database.erase_rows(claimed, 60.0)


async def test_a_deleted_job_is_gone_with_its_rows_and_its_events(under_test):
    database = under_test.database
    await completed(database)
    version = (await database.job(*KEY)).version

    deletion = await database.begin_deletion(KEY, "key_1")

    assert await database.job(*KEY) is None
    assert await database.named("t", "j", "r") == []
    assert await database.requests(*KEY, 1) == []
    assert (deletion.run, deletion.version, deletion.requested_by) == (1, version, "key_1")
    assert deletion.receipt["rows"]["transcripts"] == deletion.receipt["rows"]["files"] == 1
    assert deletion.receipt["bytes"] == 7
    assert await database.deletion(*KEY) == deletion
    assert [topic for topic, _ in await under_test.outbox()] == [STATUS]
    assert await database.begin_deletion(KEY, "key_2") is None
    assert await database.deletion("u", "j") is None


async def test_what_was_billed_names_the_receipt_afterwards(under_test):
    database = under_test.database
    await completed(database)
    deletion = await database.begin_deletion(KEY, "key_1")
    [claimed] = await database.due_deletions(10, 60.0)
    await database.erase_rows(claimed, 60.0)

    [row] = await under_test.usage()
    assert (row.tenant_id, row.job_id, row.quantity) == ("t", deletion.id, 7)


async def test_a_run_that_has_not_ended_ends_once_and_a_terminal_event_on_its_way_still_leaves(under_test):
    database = under_test.database
    await database.commit([created(job())])
    await database.begin_deletion(KEY, "key_1")
    failed = [topic for topic, _ in await under_test.outbox()]

    ended = moved("completed", job_id="k", later=())
    await database.commit([created(job("k", status="transcribing")), ended])
    await database.commit(
        [Step("x", uuid4(), Outcome(raw=((Message(uuid4(), PERSISTED, b"k", b"{}", (), "t", "k", 1), 0.0),)))]
    )
    await database.begin_deletion(("t", "k"), "key_1")
    both = [topic for topic, _ in await under_test.outbox()]

    assert failed == [FAILED, STATUS]
    assert both == [FAILED, STATUS, PERSISTED, STATUS]


async def test_steps_of_the_deleted_run_write_nothing_and_make_another_pass_due(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    await database.begin_deletion(KEY, "key_1")
    [claimed] = await database.due_deletions(10, 3600.0)
    assert await database.due_deletions(10, 60.0) == []
    before = await under_test.outbox()

    change = RequestChange(run=1, provider="a", token=0, columns={"state": "submitted", "provider_id": "v-1"})
    results = await database.commit([of_run(request(), raw=retry(), request=change), of_run(request(), raw=retry())])

    assert [(written.applied, written.messages) for written in results] == [(False, []), (False, [])]
    assert await under_test.outbox() == before
    assert await database.keep_deletion(replace(claimed, due_at=None)) is False
    [again] = await database.due_deletions(10, 60.0)
    assert {"provider": "a", "id": "v-1"} in again.copies
    await database.put_off_deletion(claimed, claimed.requested_at, "of an earlier claim")
    assert await database.due_deletions(10, 60.0) == []
    counted = replace(again, receipt={**again.receipt, "blobs": 7})
    assert await database.keep_deletion(counted) is True
    await database.put_off_deletion(again, again.requested_at, "the store is away")
    [put_off] = await database.due_deletions(10, 3600.0)
    assert (put_off.error, put_off.receipt["blobs"], put_off.copies) == ("the store is away", 7, again.copies)
    assert await database.keep_deletion(replace(put_off, due_at=None)) is True
    assert await database.due_deletions(10, 60.0) == []


async def test_a_new_job_of_the_same_id_goes_on_behind_the_deleted_one(under_test):
    database = under_test.database
    await completed(database)
    deletion = await database.begin_deletion(KEY, "key_1")

    [late] = await database.commit([created(job(reference="r"))])
    assert (late.applied, await database.job(*KEY)) == (False, None)
    await database.commit([created(job(reference="r", run=2))])
    renewed = await database.job(*KEY)
    assert (renewed.run, renewed.version) == (2, deletion.version + 1)

    [claimed] = await database.due_deletions(10, 60.0)
    await database.erase_rows(claimed, 60.0)
    assert await database.job(*KEY) == renewed

    second = await database.begin_deletion(KEY, "key_1")
    assert (second.run, second.id != deletion.id) == (2, True)
    assert await database.deletion(*KEY) == second


async def test_an_upload_that_fails_with_the_id_of_a_deleted_job_is_answered(under_test):
    database = under_test.database
    await completed(database)
    await database.begin_deletion(KEY, "key_1")
    upload = AudioUploaded(tenant_id="t", audio_uri="file:///a.wav", filename="a.wav")

    [kept] = await database.commit([of_run(upload, raw=retry())])
    assert [message.topic for message, _ in kept.messages] == ["x.due"]

    await database.commit([Step("intake", uuid4(), failed_upload(job(), "intake", Failure("no audio")))])
    failed = await database.job(*KEY)
    assert (failed.status, failed.run) == ("failed", 2)


async def test_files_alone_are_forgotten_once_the_run_has_ended(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing", original_uri="file:///t/j/original.wav"), "a")])
    assert await database.begin_deletion(KEY, "retention", "files") is None
    await database.commit([moved("completed")])
    await database.commit([Step("x", uuid4(), Outcome(tenant_id="t", job_id="j", files=(blob(),)))])

    deletion = await database.begin_deletion(KEY, "retention", "files")

    assert (deletion.scope, deletion.receipt["rows"]["files"]) == ("files", 1)
    assert (await database.job(*KEY)).original_uri is None
    assert await database.deletion(*KEY) is None
    assert [claimed.id for claimed in await database.due_deletions(10, 60.0)] == [deletion.id]


async def test_a_task_for_a_deleted_job_loses_its_lease(under_test):
    database = under_test.database
    await database.commit([created(job())])
    for key in ("fetch/t/j/1", "fetch/t/j/2", "fetch/t/jj/1"):
        assert await database.lease(key, "worker", 60.0)
    deletion = await database.begin_deletion(KEY, "key_1")
    [claimed] = await database.due_deletions(10, 60.0)
    await database.erase_rows(claimed, 60.0)

    renewed = [await database.lease(key, "worker", 60.0) for key in ("fetch/t/j/1", "fetch/t/j/2", "fetch/t/jj/1")]
    assert renewed == [False, True, True]
    await database.keep_deletion(replace(claimed, done_at=deletion.requested_at))
    assert await database.lease("fetch/t/j/1", "worker", 60.0)


async def test_answers_that_name_the_job_go_with_it_and_others_stay(under_test):
    database, claim = under_test.database, uuid4()
    answers = {"its id": b'{"job_id":"1"}', "its path": b'{"url":"/jobs/1?x"}', "another": b'{"job_id":"11","n":1}'}
    for key, body in answers.items():
        await database.claim_key("t", key, "f", claim, 60.0)
        await database.answer_key("t", key, claim, Answer(200, {}, body))
    await database.commit([created(job("1"))])
    await deleted(database, ("t", "1"))

    known = {key: (await database.claim_key("t", key, "f", uuid4(), 60.0)).answer for key in answers}
    assert {key for key, answer in known.items() if answer} == {"another"}


async def searchable(under_test, job_id) -> None:
    """A passage of the job has a vector, and is waited for all the same."""
    database, passage = under_test.database, chunk("hello", job_id=job_id)
    await database.begin_generation("m", 2)
    step = indexed(passage)
    await database.commit([replace(step, outcome=replace(step.outcome, enrichment=None, audit=""))])
    [generation] = await database.generations()
    run = {"tenant_id": "t", "job_id": job_id, "run": 1, "transcript_version": 1, "attempts": 0}
    work = EmbeddingWork(**run, generation=generation.generation)
    assert await database.keep_vectors(work, {passage.hash: [1.0, 0.0]}, [], 0.0)


async def with_everything(under_test, job_id) -> None:
    """A job that has rows in every table: a run that was corrected, and an event that Kafka has refused."""
    database, of, key = under_test.database, {"tenant_id": "t", "job_id": job_id}, ("t", job_id)
    await database.commit([created(job(job_id, reference=job_id, status="transcribing"), "a", "b", audit="started")])
    ended = replace(cases.transcript(job_id, "t", 1), agreement=0.5)
    review = tuple(item(n, "t", job_id=job_id, id=f"{job_id}-{n}") for n in range(2))
    progress, later = Progress(run=1, status="completed", stage="persist"), (Later(FAILED, failed_event(job_id)),)
    speaker = {"speaker": "A", "label": "A", "model": "m", "vector": b"", "seconds": 9.0}
    outcome = Outcome(**of, progress=progress, transcript=ended, review=review, new_enrichments=("summary",))
    outcome = replace(outcome, voices=(SpeakerVoice(**of, run=1, **speaker),))
    await database.commit([Step("persist", uuid4(), replace(outcome, later=later, usage=(used(**of),), audit="done"))])
    await summarised(under_test, job_id=job_id)
    await searchable(under_test, job_id)
    choice = ReviewChoice(**of, item=f"{job_id}-0", reviewer="ann", run=1, choice=0)
    corrected = edit(tenant="t", choice=choice)
    version = replace(corrected.outcome.edit.version, job_id=job_id)
    after = replace(corrected.outcome.edit.transcript, job_id=job_id)
    changes = replace(corrected.outcome.edit, version=version, transcript=after)
    files = (replace(blob(), job_id=job_id, uri=f"file:///t/{job_id}/original.wav"),)
    await database.commit(
        [Step("edit", uuid4(), replace(corrected.outcome, job_id=job_id, edit=changes, files=files, later=()))]
    )
    url = IssuedUrl(**of, uri=files[0].uri, url="https://x/?signature", expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    await database.keep_issued_urls([url])
    await database.keep_adjudications([answer(f"question {job_id}", job_id=job_id)])
    await database.begin_upload(direct_upload(job_id=job_id, upload_id=uuid5(NAMESPACE, job_id)))
    for uri in (f"file:///t/{job_id}/late.wav", f"file:///t/_uploads/{job_id}"):
        await database.hold_blob(key, uri, -1.0)
    await database.note_revivals([await database.job(*key)])
    mail = Mail(**of, run=1, transcript_version=1, message_id="1@x.example", waiting=["ann@reader.example"])
    await database.begin_mail(mail)
    await database.keep_strays([Stray("a", job_id, None, None, f"concord-t~{job_id}~1~a")])


def failed_event(job_id):
    return JobFailed(tenant_id="t", job_id=job_id, run=1, stage="x", code="x", error="x", attempts=1)


async def remains(under_test, reader, job_id) -> dict[str, Any]:
    """What the ports tell of the job that `with_everything` has made."""
    database, key = under_test.database, ("t", job_id)
    [found] = await database.adjudications("t", "x", 1, [f"question {job_id}"]) or [None]
    return {
        "transcript": await reader.transcript(*key),
        "versions": await reader.versions(*key, 1),
        "review": [one for n in range(2) if (one := await reader.review_item("t", f"{job_id}-{n}"))],
        "files": await reader.files(*key),
        "urls": await database.issued_urls(key),
        "requests": await database.requests(*key, 1),
        "adjudication": found,
        "mail": await database.mail(*key, 1),
        "upload": await database.direct_upload(uuid5(NAMESPACE, job_id)),
        "deliveries": [d for d in await database.deliveries("t", "wh_1", None, None, 99) if d.job_id == job_id],
        "strays": [stray for stray in await database.strays("a") if stray.provider_id == job_id],
        "audit": [entry for entry in await under_test.audit() if entry.job_id == job_id and entry.step != "delete"],
        "blobs": [uri for uri in await database.orphan_blobs(0, 3600, 99) if uri == f"file:///t/{job_id}/late.wav"],
        "refused": [row["job_id"] for row in await database.refused(99) if row["job_id"] == job_id],
    }


async def test_every_kind_of_row_goes_and_is_counted_and_another_jobs_stay(under_test):
    database = under_test.database
    reader = MemoryReader(database) if isinstance(database, MemoryDatabase) else Reader(under_test.pool)
    await database.create_webhook(
        Endpoint(tenant_id="t", webhook_id="wh_1", url="https://x/", events=["*"]), "whsec_MQ=="
    )
    await database.save_account_settings("t", AccountSettings(voice_prints=True), 0, "key_1")
    for job_id in ("j", "k"):
        await with_everything(under_test, job_id)
    await under_test.set_aside(FAILED, "refused")
    assert all((await remains(under_test, reader, "j")).values())
    before = await remains(under_test, reader, "k")

    events = len([topic for topic, _ in await under_test.outbox()])
    done = await deleted(database, KEY)

    assert {name: rows for name, rows in (await remains(under_test, reader, "j")).items() if rows} == {}
    assert await remains(under_test, reader, "k") == before
    several = {"review_items": 2, "provider_requests": 2, "audit_log": 4, "summary_items": 5, "outbox": events / 2}
    assert done.receipt["rows"] == dict.fromkeys(ERASED, 1) | several
    assert [(await reader.review_progress("t")).done, len(await under_test.usage())] == [1, 2]
    assert "file:///t/_uploads/j" in await database.orphan_blobs(0, 3600, 99)


async def test_every_table_with_rows_of_jobs_is_erased_or_kept_for_a_reason(db):
    tables = {row["relname"] for row in await db.fetch(JOB_TABLES)}

    assert tables == ERASED.keys() | KEPT.keys() | WITH_THE_JOB
    assert not ERASED.keys() & KEPT.keys()


async def test_nobody_deletes_the_job_of_another_tenant(migrated, db):
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    try:
        await database.commit([created(job("j", "acme"))])
        assert await database.acting_as("bolt").begin_deletion(("acme", "j"), "key_1") is None
        deletion = await database.acting_as("acme").begin_deletion(("acme", "j"), "key_1")
        assert await database.acting_as("bolt").deletion("acme", "j") is None
    finally:
        await pool.close()
    assert [row["id"] for row in await db.fetch("SELECT id FROM deletions")] == [deletion.id]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.execute("SET ROLE concord_tenant; DELETE FROM deletions")


async def test_the_blobs_of_a_conversation_are_named_by_its_deletion(under_test):
    database = under_test.database
    conversation = replace(job(), audio_uri="elevenlabs:conv_1", reference="elevenlabs:conv_1")
    await database.commit([Step("fetch", uuid4(), Outcome(tenant_id="t", job_id="j", create=conversation))])
    begun = await database.begin_deletion(KEY, "key")
    [due] = await database.due_deletions(5, 30)

    names = ["t/transcripts/conv_1.txt", "t/audio/conv_1.mp3", "t/reports/conv_1.pdf"]
    assert begun.blobs == due.blobs == names
    assert (await database.deletion(*KEY)).blobs == names
