"""What the sweeper asks of databases, and of Kafka: PostgreSQL and the double say the same."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.runtime.kafka.client import Kafka, consumer, producer
from agents.runtime.kafka.group_positions import GroupPositions
from schemas import topics
from schemas.events.asr import AsrDeadline, AsrRequest
from schemas.jobs.outcome import Later, Outcome, Progress, Step
from schemas.jobs.rows import File
from tests.contract.test_databases import created, dsn, job, under_test  # noqa: F401 - fixtures

WHOSE = {"tenant_id": "t", "job_id": "j"}
ASKED = Later(
    topics.requests("a").name,
    AsrRequest(**WHOSE, provider="a", audio_uri="file:///a.wav"),
    seconds=3600,
    kind=topics.REQUEST_TYPE,
)
DEADLINE = Later(topics.RECONCILE_DUE.name, AsrDeadline(**WHOSE), seconds=3600, kind="asr.deadline")


async def soon(database):
    """A moment after everything that has happened so far."""
    return await database.now() + timedelta(seconds=1)


async def stuck(database, status):
    return await database.stuck_jobs(status, await soon(database), 10)


def original(uri):
    return File(
        tenant_id="t", job_id="j", run=1, kind="original", uri=uri, size_bytes=1, content_type="a/b", sha256="x"
    )


@pytest.mark.parametrize("status", ["uploaded", "reconciling", "persisting"])
async def test_an_open_job_without_a_waiting_event_is_stuck(under_test, status):  # noqa: F811
    database = under_test.database
    await database.commit([created(job(status=status)), created(job("ended", status="completed"))])
    long_ago = await database.now() - timedelta(hours=1)

    [one] = await stuck(database, status)

    assert (one.job.job_id, one.providers, one.times) == ("j", (), 0)
    assert await database.stuck_jobs(status, long_ago, 10) == []


async def test_of_a_job_that_is_heard_what_waits_is_told_by_recognizer(under_test):  # noqa: F811
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b", later=(ASKED, DEADLINE))])
    await database.commit([created(job("k", status="transcribing"), "a")])

    by_job = {one.job.job_id: one for one in await stuck(database, "transcribing")}

    assert (by_job["j"].providers, by_job["j"].without_deadline) == (("b",), False)
    assert (by_job["k"].providers, by_job["k"].without_deadline) == (("a",), True)


async def test_a_job_with_everything_on_its_way_is_not_stuck(under_test):  # noqa: F811
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", later=(ASKED, DEADLINE))])

    assert await stuck(database, "transcribing") == []


async def test_another_tenants_event_does_not_count(under_test):  # noqa: F811
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", later=(ASKED, DEADLINE))])
    await database.commit([created(job(tenant="other", status="transcribing"), "a")])

    assert [one.job.tenant_id for one in await stuck(database, "transcribing")] == ["other"]


async def test_revivals_are_counted_until_the_job_changes(under_test):  # noqa: F811
    database = under_test.database
    await database.commit([created(job(status="reconciling"))])
    for times in (1, 2):
        before = await database.now()
        await database.note_revivals([await database.job("t", "j")])
        assert await database.stuck_jobs("reconciling", before, 10) == []
        [one] = await stuck(database, "reconciling")
        assert one.times == times

    moved = Outcome(tenant_id="t", job_id="j", progress=Progress(run=1, reason="moved"))
    await database.commit([Step("reconcile", uuid4(), moved)])

    [one] = await stuck(database, "reconciling")
    assert one.times == 0


async def test_an_intended_blob_is_an_orphan_until_a_step_refers_to_it(under_test):  # noqa: F811
    database = under_test.database
    for uri in ("s3://b/t/j/original.wav", "s3://b/t/j/original.au"):
        await database.intend_blob(("t", "j"), uri)

    assert await database.orphan_blobs(0, 3600, 10) == []  # the job may be about to be made
    await database.commit([created(job(), files=(original("s3://b/t/j/original.wav"),))])

    assert await database.orphan_blobs(0, 0, 10) == ["s3://b/t/j/original.au"]
    await database.forget_blobs(["s3://b/t/j/original.au"])
    assert await database.orphan_blobs(0, 0, 10) == []


async def test_the_blob_of_a_refused_step_is_an_orphan_at_once(under_test):  # noqa: F811
    database = under_test.database
    await database.commit([created(job(), files=(original("s3://b/t/j/original.wav"),))])
    await database.intend_blob(("t", "j"), "s3://b/t/j/original.au")
    await database.intend_blob(("t", "j"), "s3://b/t/j/original.wav")

    await database.commit([created(job(), files=(original("s3://b/t/j/original.au"),))])
    await database.commit([created(job(), files=(original("s3://b/t/j/original.wav"),))])

    assert await database.orphan_blobs(3600, 3600, 10) == ["s3://b/t/j/original.au"]


async def test_a_group_has_passed_what_it_has_committed_markers_of_transactions_left_out(kafka):
    where, topic, group = Kafka(kafka), f"positions-{uuid4().hex}", f"group-{uuid4().hex}"
    admin = AIOKafkaAdminClient(**where.client())
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    sender = producer(where, transactional_id=uuid4().hex)
    await sender.start()
    async with sender.transaction():
        await sender.send_and_wait(topic, b"one", partition=0)
    positions = GroupPositions(where)
    ends = await positions.ends([topic, "no-such-topic"])
    unread = await positions.passed({group: [topic]}, ends)
    reader = consumer(where, topic, group_id=group)
    await reader.start()
    await reader.getone()
    await reader.commit()
    await reader.stop()
    read = await positions.passed({group: [topic]}, ends)
    async with sender.transaction():
        await sender.send_and_wait(topic, b"two", partition=0)
    later = await positions.ends([topic])
    await sender.stop()
    await admin.close()

    assert (unread, read) == (False, True)
    assert not await positions.passed({group: [topic]}, later)
    assert await positions.passed({group: [topic]}, ends)
