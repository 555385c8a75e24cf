"""Uploads of the maximum size, and the events that follow from them."""

from __future__ import annotations

import orjson
import pytest

from agents.media.source.audio_source import AudioSource
from agents.runtime.in_memory import Clock, MemoryFleet
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage
from agents.stages import intake, track
from agents.stages.uploads.runs import Runs
from schemas.messages import largest, size_of
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from tests.fleet.conftest import JOB


@pytest.fixture
async def fleet(probe_pool):
    """An intake that may fetch from this machine, where nothing listens: every fetch is tried again and given up."""
    clock = Clock()
    database, store = MemoryDatabase(clock=clock), MemoryStore()
    work = LeasedTasks(database, "test", limit=8)
    audio_source = AudioSource(store, probe_pool, (), frozenset({"127.0.0.1"}))
    stage: Stage = intake.stage(intake.Intake(database, audio_source, work, Runs(("a",), 3600)))
    yield MemoryFleet([stage], database, clock, track.TABLE_STAGE)
    await work.close()
    await audio_source.close()


def upload(metadata: bytes) -> bytes:
    data = {"tenant_id": "t", "job_id": JOB, "audio_uri": "http://127.0.0.1:9/x.wav", "filename": "x.wav"}
    return orjson.dumps(data)[:-1] + b', "metadata": {"x": ' + metadata + b"}}"


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        (b'"' + b"y" * (899_990 - len(upload(b'""'))) + b'"', "retries_exhausted"),
        (b"[" + b",".join([b"1e15"] * 170_000) + b"]", "malformed_event"),
    ],
    ids=["of 899,990 bytes", "whose numbers grow when they are written again"],
)
async def test_a_large_upload_that_is_fetched_later_ends_like_any_other(fleet, metadata, code):
    value = upload(metadata)
    assert 850_000 < len(value) <= 899_990
    fleet.publish("audio.uploaded", value)
    await fleet.run()
    everything = [record for records in fleet.log.values() for record in records if record.topic != "audio.uploaded"]

    assert [(e["job_id"], e["code"]) for e in fleet.events("job.failed")] == [(JOB, code)]
    assert all(size_of(record) <= largest(record.topic) for record in everything)
