"""Every job ends, also one whose event Kafka refuses."""

from __future__ import annotations

from uuid import uuid4

import orjson
import pytest

from agents.runtime.outbox.refused_events import end_of_run
from agents.stages import registry
from schemas import topics
from schemas.envelope import Record, decode
from schemas.events.audio import AudioFetch
from schemas.jobs.outcome import Later, Outcome, Step
from schemas.jobs.rows import Job
from schemas.messages import Message, again, dump_headers, message
from sinks.memory.database import MemoryDatabase

JOB_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def row_of(sent: Message) -> dict[str, object]:
    """The outbox row of a message."""
    names = ("topic", "key", "value", "tenant_id", "job_id", "run")
    return {name: getattr(sent, name) for name in names} | {
        "event_id": sent.id,
        "headers": dump_headers(sent.headers),
    }


def terminal(database: MemoryDatabase) -> list[dict[str, object]]:
    return [orjson.loads(m.value or b"") for _, m in database.outbox if m.topic == "job.failed"]


async def test_the_run_of_an_event_ends_once_however_often_the_relay_dies():
    database = MemoryDatabase()
    job = Job(tenant_id="t", job_id="j", filename="a.wav", audio_uri="https://example.com/a.wav")
    fetch = AudioFetch(tenant_id="t", job_id="j", audio_uri=job.audio_uri, filename="a.wav")
    created = Outcome(tenant_id="t", job_id="j", create=job, later=(Later("intake.due", fetch, kind="audio.fetch"),))
    await database.commit([Step("intake", uuid4(), created)])
    row = row_of(next(m for _, m in database.outbox if m.topic == "intake.due"))
    for _ in range(2):
        await database.commit([end_of_run(row, "MessageSizeTooLarge", registry.refusals())])

    [failed] = terminal(database)
    assert (failed["job_id"], failed["code"], failed["stage"]) == ("j", "publish_refused", "relay")
    assert "MessageSizeTooLarge" in str(failed["error"])
    job = await database.job("t", "j")
    assert job is not None
    assert (job.status, job.steps["relay"].state) == ("failed", "failed")


async def test_an_upload_that_was_to_be_tried_again_has_a_job_that_failed():
    database = MemoryDatabase()
    value = orjson.dumps({"tenant_id": "t", "job_id": JOB_ID, "audio_uri": "https://e.com/a.wav", "filename": "a.wav"})
    upload = decode(Record("audio.uploaded", 0, 3, b"k", value), {"audio.uploaded": topics.UPLOADED})
    step = end_of_run(row_of(again(upload, "intake.due", id=uuid4(), attempt=1)), "refused", registry.refusals())
    await database.commit([step])

    assert [(e["tenant_id"], e["job_id"], e["code"]) for e in terminal(database)] == [("t", JOB_ID, "publish_refused")]


@pytest.mark.parametrize("topic", ["audio.uploaded.dlq", "job.status", "persisted", "job.failed"])
def test_no_run_depends_on_what_it_leaves_behind(topic):
    fetch = AudioFetch(tenant_id="t", job_id="j", audio_uri="https://e.com/a.wav", filename="a.wav")
    sent = message("intake.due", fetch, id=uuid4(), now=MemoryDatabase().clock(), kind="audio.fetch")

    assert end_of_run(row_of(sent), "refused", registry.refusals()) is not None
    assert end_of_run(row_of(sent) | {"topic": topic}, "refused", registry.refusals()) is None


@pytest.mark.parametrize("headers", [b"[1]", b"[]", b"nonsense"])
def test_a_row_without_a_job_ends_nothing(headers):
    row = {"event_id": uuid4(), "topic": "intake.due", "key": None, "value": b"\xff", "headers": headers}

    assert end_of_run(row | {"tenant_id": None, "job_id": None, "run": None}, "refused", registry.refusals()) is None
