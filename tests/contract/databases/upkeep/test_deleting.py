"""Deletions are carried out on both databases, with blobs in a folder."""

from __future__ import annotations

from uuid import uuid4

import pytest

from agents.commands.operations.retention import expired_of
from agents.upkeep.deleting import Deleter
from agents.upkeep.job_retention import JobRetention
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import File
from sinks.blobs.local import LocalStore
from sinks.ports.upkeep.retention import Retention
from tests.contract.databases.cases import created, job, moved


class NoCopies:
    """Recognizers that keep nothing."""

    async def erase(self, provider, copy):
        return None


async def goes_on():
    return True


async def retention():
    return {"persisted": 60.0}


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, durable=False)
    yield store
    await store.close()


async def ended(database, store, job_id="j", status="completed"):
    """A job that has ended, with a recording."""
    blob = await store.put(f"t/{job_id}/original.wav", b"audio", "audio/wav")
    await database.commit([created(job(job_id, status="transcribing", original_uri=blob.uri))])
    await database.commit([moved(status, job_id=job_id)])
    of = {"tenant_id": "t", "job_id": job_id, "run": 1, "kind": "original", "content_type": "audio/wav"}
    file = File(**of, uri=blob.uri, size_bytes=blob.size_bytes, sha256=blob.sha256)
    await database.commit([Step("x", uuid4(), Outcome(tenant_id="t", job_id=job_id, files=(file,)))])


async def test_a_deletion_is_carried_out_and_its_receipt_kept(under_test, store):
    database, deleter = under_test.database, Deleter(under_test.database, store, NoCopies(), retention)
    await ended(database, store)
    await database.begin_deletion(("t", "j"), "key_1")
    assert await deleter.round() == 1
    waiting = await database.deletion("t", "j")

    assert [uri async for uri in store.list("t/j/")] == []
    assert waiting.receipt["blobs"] == waiting.receipt["swept"] == 1
    assert waiting.done_at is None
    assert waiting.due_at == waiting.settled_at
    assert await deleter.round() == 0


async def test_what_was_kept_for_long_enough_is_found_the_oldest_first(under_test, store):
    database = under_test.database
    for id, status in {"a": "completed", "b": "failed", "c": "completed"}.items():
        await ended(database, store, id, status)
    await database.commit([created(job("open"))])

    async def expired(kind, limit=10):
        return await database.expired_jobs("t", kind, 0.0, limit)

    assert (await expired("completed"), await expired("failed"), await expired("files", 2)) == (
        ["a", "c"],
        ["b"],
        ["a", "b"],
    )
    counts = [await database.count_expired("t", kind, 0.0) for kind in ("files", "completed", "failed")]
    assert [(one.jobs, one.size_bytes) for one in counts] == [(3, 15), (2, 10), (1, 5)]
    assert await database.expired_jobs("t", "files", 1.0, 10) == []
    assert await database.tenants() == ["t"]


async def test_files_of_conversations_and_those_that_failed_are_found_among_others(under_test, store):
    database = under_test.database
    for id, status in {"a": "completed", "b": "failed", "c": "completed"}.items():
        await ended(database, store, id, status)
    for id, status in {"x": "completed", "y": "failed"}.items():
        row = job(id, status="transcribing", audio_uri=f"elevenlabs:conv_{id}")
        text = File(
            tenant_id="t",
            job_id=id,
            run=1,
            kind="conversation",
            content_type="text/plain",
            uri=f"file:///t/transcripts/conv_{id}.txt",
            size_bytes=7,
            sha256="0",
        )
        await database.commit([created(row, files=(text,))])
        await database.commit([moved(status, job_id=id)])
    kinds = ("conversation_files", "failed_conversations")

    found = [await database.expired_jobs("t", kind, 0.0, 10) for kind in kinds]
    counts = [await database.count_expired("t", kind, 0.0) for kind in kinds]

    assert found == [["x", "y"], ["y"]]
    assert [(one.jobs, one.size_bytes) for one in counts] == [(2, 14), (1, 7)]
    assert [await database.expired_jobs("t", kind, 1.0, 10) for kind in kinds] == [[], []]
    await database.begin_deletion(("t", "x"), "retention", "files")
    assert await database.expired_jobs("t", "conversation_files", 0.0, 10) == ["y"]


async def test_each_tenant_has_its_own_limits_and_what_is_due_goes_once(under_test, store):
    database = under_test.database
    for id, status in {"a": "completed", "b": "failed"}.items():
        await ended(database, store, id, status)
    await database.commit([created(job("u", "other", status="failed"))])

    class Limits:
        async def retention(self, tenant_id):
            return Retention(files=0.0, failed=0.0) if tenant_id == "t" else Retention()

    due = [(tenant, kind, found.jobs) async for tenant, kind, found in expired_of(database, Limits())]
    retention_of_jobs = JobRetention(database, Limits())

    assert due == [("t", "files", 2), ("t", "failed", 1)]
    assert [await retention_of_jobs.round(goes_on) for _ in range(2)] == [2, 0]
    deletions = {deletion.job_id: deletion for deletion in await database.due_deletions(10, 60.0)}
    assert {id: (one.scope, one.requested_by) for id, one in deletions.items()} == {
        "a": ("files", "retention"),
        "b": ("job", "retention"),
    }
    assert (await database.job("t", "a")).original_uri is None
    assert await database.job("t", "b") is None
