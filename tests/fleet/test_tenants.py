"""Two tenants that use the same names at the same time; and valid references of a producer."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from uuid import UUID

import orjson
import pytest

from agents.media.source.audio_source import AudioSource
from agents.runtime.in_memory import Clock, MemoryFleet
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages import intake, track
from agents.stages.uploads.runs import Runs
from schemas import blob_names, ids
from schemas.errors import InvalidInput, Unavailable
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from tests.fleet.conftest import JOB, FakeRecognizer, recording

TENANTS = ("acme", "bolt")
OTHER_JOB = "4711ca11-0000-4000-8000-000000000001"


async def uploaded(scenario, tenant, name=JOB, *, seconds=0.5, **more):
    """The recording of `seconds`, uploaded under this job id, or under none."""
    return await scenario.upload(name, tenant, content=recording(seconds), **more)


def letters(scenario):
    """Why uploads were refused."""
    return [record.header("dlq-reason") for record in scenario.fleet.log["audio.uploaded.dlq"]]


def jobs(scenario):
    """(tenant, job, reference) of all jobs, as their newest statuses say."""
    newest = {(s["tenant_id"], s["job_id"]): s.get("reference") for s in scenario.fleet.events("job.status")}
    return {(*key, reference) for key, reference in newest.items()}


@pytest.mark.parametrize("named", [{"job_id": JOB}, {"job_id": None, "reference": "call 17"}])
async def test_two_tenants_with_one_name_have_a_job_each_with_its_own_recording(make_scenario, named):
    """Uploaded, transcribed, announced, looked up and paid for at the same time, one event of each after the other."""
    scenario = make_scenario(FakeRecognizer("a", polls=2), FakeRecognizer("b", lose_answer=True), slots={"a": 1})
    for number, tenant in enumerate(TENANTS):
        blob = await scenario.store.put(f"{tenant}/in/call.wav", recording(0.5 + number / 2), "audio/wav")
        data = {"tenant_id": tenant, "audio_uri": blob.uri, "filename": f"{tenant}.wav"} | named
        scenario.fleet.publish("audio.uploaded", orjson.dumps(data), b"same key")
    for _ in range(60):
        await scenario.limiters["a"].refresh()
        await scenario.fleet.run(until=timedelta(seconds=1))
        scenario.fleet.clock.advance(1)

    done = {event["tenant_id"]: event for event in scenario.fleet.events("persisted")}
    assert sorted(done) == ["acme", "bolt"]
    assert len(scenario.fleet.events("persisted")) == 2
    for number, tenant in enumerate(TENANTS):
        event = done[tenant]
        assert event["duration_seconds"] == 0.5 + number / 2
        assert event["filename"] == f"{tenant}.wav"
        optimized = orjson.loads(await scenario.store.get(event["agent_optimized_uri"]))
        assert (optimized["tenant_id"], optimized["metadata"]["filename"]) == (tenant, f"{tenant}.wav")
        assert scenario.fleet.status(tenant, event["job_id"]).filename == f"{tenant}.wav"
        used = [row for row in scenario.fleet.database.usage if row.tenant_id == tenant and row.unit == "requests"]
        assert sorted((row.job_id, row.provider) for row in used) == [(event["job_id"], p) for p in "ab"]
    # Each recording was paid for once by either recognizer; and no request served both tenants.
    assert [sorted(s.charges.values()) for s in scenario.recognizers.values()] == [[1, 1], [1, 1]]
    assert not scenario.fleet.log["audio.uploaded.dlq"]
    assert len(scenario.fleet.table) == 2


class Late(MemoryStore):
    """A store from which one tenant's recordings come only when they are let."""

    def __init__(self, tenant):
        super().__init__()
        self.tenant, self.arrived = tenant, asyncio.Event()

    @contextlib.asynccontextmanager
    async def local_path(self, uri):
        if self.name(uri).startswith(f"{self.tenant}/in/"):
            await self.arrived.wait()
        async with super().local_path(uri) as path:
            yield path


class Flickering(MemoryDatabase):
    """A database that is away for the next commits of a stage."""

    away = 0

    async def commit(self, steps):
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        return await super().commit(steps)


@pytest.mark.parametrize("first", TENANTS)
@pytest.mark.parametrize("slow", TENANTS)
async def test_a_recording_that_takes_long_to_fetch_stays_its_own_tenants(probe_pool, slow, first, monkeypatch):
    """Its fetch goes on outside its event while the other tenant's upload with the same job id comes; PostgreSQL is
    away when the result is to be kept; and either of them may be the first to ask for it then.
    """
    monkeypatch.setattr("agents.stages.intake.QUICK_S", 0.3)
    monkeypatch.setattr("agents.stages.intake.POLL_S", 0.3)
    clock, store = Clock(), Late(slow)
    database, audio_source = Flickering(clock=clock), AudioSource(store, probe_pool, ())
    work = LeasedTasks(database, "test", limit=8)
    fleet = MemoryFleet(
        [intake.stage(intake.Intake(database, audio_source, work, Runs(("a",), 3600)))],
        database,
        clock,
        track.TABLE_STAGE,
    )
    lengths = dict(zip(TENANTS, (0.5, 1.5), strict=True))
    uploads = {}
    for tenant in (slow, *(other for other in TENANTS if other != slow)):
        blob = await store.put(f"{tenant}/in/call.wav", recording(lengths[tenant]), "audio/wav")
        data = {"tenant_id": tenant, "job_id": JOB, "audio_uri": blob.uri, "filename": "call.wav"}
        uploads[tenant] = fleet.publish("audio.uploaded", orjson.dumps(data))
        await fleet.run(until=timedelta(seconds=0.5))
    store.arrived.set()
    database.away = 2
    clock.advance(2)
    fleet._relay()
    looks = {orjson.loads(record.value)["tenant_id"]: record for record in fleet.log["intake.due"]}
    fleet._queues["intake"].clear()
    for _ in range(3):
        for tenant in (first, *TENANTS):
            fleet.deliver_again(looks.get(tenant, uploads[tenant]))
        with contextlib.suppress(Unavailable):
            await fleet.run(until=timedelta(seconds=30))
    await fleet.run(until=timedelta(seconds=30))
    await work.close()
    await audio_source.close()

    for tenant, seconds in lengths.items():
        assert (await database.job(tenant, JOB)).duration_ms == round(seconds * 1000)
        original = database.files[tenant, JOB, 1, "original"]
        assert store.name(original.uri) == f"{tenant}/{JOB}/original.wav"
        assert await store.get(original.uri) == recording(seconds)
    assert not fleet.log["audio.uploaded.dlq"]


async def test_the_deadline_the_sweep_and_a_new_run_of_one_tenants_job_leave_the_others_alone(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", text="fails"))
    await uploaded(scenario, "acme")
    await scenario.fleet.run()
    scenario.recognizers["a"].text = "hello there world"
    await uploaded(scenario, "bolt")
    await scenario.fleet.run()
    await uploaded(scenario, "acme", headers=(("ce_replay", b"1"),))
    await scenario.fleet.run()

    runs = [(e["tenant_id"], e["run"]) for e in scenario.fleet.events("persisted")]
    assert runs == [("bolt", 1), ("acme", 2)]
    assert [(e["tenant_id"], e["run"]) for e in scenario.fleet.events("job.failed")] == [("acme", 1)]
    kept = {uri.split("/")[2] async for uri in scenario.store.list("") if "original" in uri}
    assert kept == {"acme", "bolt"}


async def test_the_name_that_a_producer_gave_stands_on_every_event(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    reference = "Kundengespräch 2026/11/21 #17"
    await scenario.upload(None, reference=reference, metadata={"campaign": "spring", "empty": None}, language="de")
    await scenario.fleet.run()

    for topic in ("job.status", "asr.results", "reconciled", "persisted"):
        assert {event["reference"] for event in scenario.fleet.events(topic)} == {reference}
    [done] = scenario.fleet.events("persisted")
    assert UUID(done["job_id"]) == UUID(ids.job_of_reference("t", reference))
    assert done["metadata"] == {"campaign": "spring", "empty": None}
    assert (done["language"], done["filename"]) == ("en", "call.wav")


async def test_metadata_that_are_too_large_for_an_event_are_in_the_file(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(metadata={"notes": "x" * 70_000})
    await scenario.fleet.run()
    [done] = scenario.fleet.events("persisted")
    optimized = orjson.loads(await scenario.store.get(done["agent_optimized_uri"]))

    assert "metadata" not in done
    assert optimized["metadata"]["custom"] == {"notes": "x" * 70_000}


async def test_a_failed_job_says_what_its_producer_called_it_and_when_it_failed(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload("order-1234", content=b"<html>")
    await scenario.fleet.run()
    [failed] = scenario.fleet.events("job.failed")

    assert failed["reference"] == "order-1234"
    assert failed["failed_at"]
    [letter] = scenario.fleet.log["audio.uploaded.dlq"]
    assert (letter.header("dlq-tenant-id"), letter.header("dlq-job-id")) == ("t", failed["job_id"])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"job_id": "order-1"}, {"job_id": "order-1"}),
        ({"job_id": "order-1"}, {"reference": "order-1"}),
        ({"reference": "order-1"}, {"job_id": "order-1", "reference": "order-1"}),
        ({"job_id": JOB}, {"job_id": JOB.upper()}),
        ({"job_id": JOB}, {"job_id": JOB.replace("-", "")}),
        ({"job_id": JOB, "reference": "order-1"}, {"reference": "order-1"}),
        ({"job_id": JOB, "reference": "order-1"}, {"job_id": JOB}),
        ({"job_id": JOB, "reference": "order-1"}, {"job_id": "order-1"}),
    ],
)
async def test_an_upload_with_a_known_name_is_a_repeat(make_scenario, first, second):
    scenario = make_scenario(FakeRecognizer("a"))
    for named in (first, second):
        await scenario.upload(**({"job_id": None} | named))
        await scenario.fleet.run()

    assert len(scenario.terminal()) == 1
    assert letters(scenario) == []
    assert scenario.recognizers["a"].charges.total() == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_new_id_with_another_jobs_reference_fails_and_says_why(make_scenario, at_once):
    """Also where both are fetched at the same time, and neither job is there when the other's upload is handled."""
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(JOB, reference="order-1")
    if not at_once:
        await scenario.fleet.run()
    await scenario.upload(OTHER_JOB, reference="order-1")
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert (failed["job_id"], failed["code"]) == (OTHER_JOB, InvalidInput.code)
    assert "another job's" in failed["error"]
    assert letters(scenario) == [failed["error"]]
    assert ("persisted", "order-1", 1) in scenario.terminal()
    assert jobs(scenario) == {("t", JOB, "order-1"), ("t", OTHER_JOB, None)}


async def test_a_known_id_with_another_reference_is_refused_and_the_job_goes_on(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(JOB, reference="order-1")
    await scenario.upload(JOB, reference="order-2")
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", "order-1", 1)]
    assert ["another reference" in reason for reason in letters(scenario)] == [True]


async def test_statuses_that_an_earlier_version_keyed_by_the_job_alone_are_ignored(make_scenario):
    """They may be in the topic still when the first worker of this version starts."""
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload()
    await scenario.fleet.run()
    last = scenario.fleet.log["job.status"][-1]
    newer = orjson.dumps(orjson.loads(last.value) | {"version": 99, "status": "failed"})
    scenario.fleet.publish("job.status", newer, JOB.encode(), last.headers)

    assert scenario.fleet.status("t", JOB).status == "completed"
    assert list(scenario.fleet.table) == [f"t/{JOB}"]


async def test_a_reference_is_no_part_of_any_path(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"))
    await scenario.upload(None, reference="../../etc/passwd")
    await scenario.fleet.run()
    [done] = scenario.fleet.events("persisted")
    stored = [uri async for uri in scenario.store.list("")]

    assert done["reference"] == "../../etc/passwd"
    assert not [uri for uri in stored if "passwd" in uri]
    assert scenario.store.uri(blob_names.agent_optimized("t", done["job_id"], 1)) in stored
