"""The order of waiting uploads: by priority, then tenants in turn, then age; and a flood can be cancelled."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import NAMESPACE_OID, uuid5

import orjson
import pytest

from agents.asr.rate_limit import ProviderLimiter
from agents.runtime.in_memory import Clock, MemoryFleet
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages import intake, track, transcribe
from agents.stages.asr_requests import stopping
from agents.stages.uploads.fetch_queue import FetchQueue
from agents.stages.uploads.runs import Runs
from agents.upkeep.cancelling import cancel, cancel_all
from schemas.jobs.rows import OPEN
from schemas.words import Hypothesis, Word
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from tests.fleet.model_rule import Rule


@dataclass
class Fetcher:
    """AudioSource that deliver when told: each fetch waits for its turn to be let through."""

    store: MemoryStore
    open: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[str] = field(default_factory=list)

    async def fetch(self, data, *, again=False):
        from agents.media.source.audio_source import Fetched

        self.begun.append(data.filename)
        await self.open.wait()
        blob = await self.store.put(f"{data.tenant_id}/{data.job_id}/audio.wav", b"RIFF", "audio/wav")
        return Fetched(blob, 500, "audio/wav")


@dataclass
class Local:
    """A recognizer that computes here, one after the other; `heard` is the order."""

    heard: list[str] = field(default_factory=list)
    name: str = "whisper-test"
    at_once: int = 1

    async def transcribe(self, path, request, tell):
        self.heard.append(request.job_id)
        return Hypothesis(self.name, (Word("hello", 0, 400, 0.9),), "en", 500, 0.9)

    async def close(self): ...


class Impatient(LeasedTasks):
    """The fleet's clock stands still while an event waits: here none waits for long."""

    async def run(self, key, make, wait_s, **more):
        return await super().run(key, make, 0.002, **more)


@dataclass
class Flood:
    """A fleet with few places, and who uploads to it."""

    fleet: MemoryFleet
    fetcher: Fetcher
    intake: intake.Intake
    local: Local
    limiter: ProviderLimiter
    names: dict[str, str] = field(default_factory=dict)

    def upload(self, tenant: str, count: int, priority: int = 5, first: int = 0) -> None:
        """So many recordings, called "<tenant><number>"."""
        for n in range(first, first + count):
            name = f"{tenant}{n}"
            job_id = str(uuid5(NAMESPACE_OID, name))
            self.names[job_id] = name
            data = {
                "tenant_id": tenant,
                "audio_uri": f"https://{tenant}.example/{name}",
                "filename": name,
                "priority": priority,
            }
            self.fleet.publish("audio.uploaded", orjson.dumps(data | {"job_id": job_id}), b"k")

    async def settle(self, looks: int) -> None:
        """Everything that is due within so many looks at who waits, which are one to two seconds apart."""
        for _ in range(looks):
            await self.fleet.run(until=timedelta(seconds=1), steps=20_000)
            await self.intake.queue.admit()
            await self.limiter.refresh()
            self.fleet.clock.advance(1)

    def status(self, name: str):
        """The published status of a recording."""
        return self.fleet.status(name.rstrip("0123456789"), str(uuid5(NAMESPACE_OID, name)))


@pytest.fixture
async def flood():
    clock, store, local = Clock(), MemoryStore(), Local()
    database = MemoryDatabase(clock=clock)
    works = Impatient(database, "here", limit=8), Impatient(database, "here", limit=7)
    fetcher = Fetcher(store)
    taking_in = intake.Intake(database, fetcher, works[0], Runs((local.name,), 86_400.0))
    limiter = ProviderLimiter(database, local.name, here=4, holder="here")
    asking = transcribe.Transcribe(local, database, store, works[1], limiter)
    fleet = MemoryFleet([intake.stage(taking_in), transcribe.stage(asking)], database, clock, track.TABLE_STAGE)
    yield Flood(fleet, fetcher, taking_in, local, limiter)
    for work in works:
        await work.close()


async def test_a_flood_waits_as_rows_and_leaves_slots_for_fetching_to_others(flood):
    flood.upload("a", 300)
    flood.upload("b", 8, priority=9)
    flood.upload("c", 1)
    await flood.settle(1)

    begun = Counter(name[0] for name in flood.fetcher.begun)
    assert begun == {"a": 4, "b": 2, "c": 1}
    assert flood.status("a0").steps["intake"].state == "running"
    assert flood.status("a299").status == "uploaded"
    assert flood.status("a299").steps["intake"].state == "waiting"
    before = len(flood.fleet.log["intake.due"])
    await flood.settle(20)
    # Those that are fetched look every 2 s, those that wait not at all.
    assert len(flood.fleet.log["intake.due"]) - before <= 20 * 8


async def test_what_is_more_urgent_overtakes_a_flood_and_tenants_poll_claims(flood):
    """Through both lines: for being fetched, and for the recognizer that computes here."""
    flood.upload("a", 100)
    await flood.settle(1)
    flood.upload("b", 8, priority=9)
    flood.upload("c", 8)
    flood.fetcher.open.set()
    await flood.settle(60)

    order = [flood.names[job_id] for job_id in flood.local.heard]
    assert sorted(order) == sorted(flood.names.values())
    assert max(order.index(f"b{n}") for n in range(8)) < 30
    assert max(order.index(f"c{n}") for n in range(8)) < 60
    assert [name for name in order if name[0] == "c"] == [f"c{n}" for n in range(8)]


async def test_a_process_that_is_behind_takes_note_of_uploads_and_begins_the_most_urgent_first(flood):
    """Places are free; it is the process that has no time."""
    object.__setattr__(flood.intake, "is_behind", lambda: True)
    flood.fetcher.open.set()
    flood.upload("a", 60)
    flood.upload("b", 4, priority=9)
    await flood.fleet.run(until=timedelta(seconds=1), steps=20_000)
    assert flood.fetcher.begun == []
    assert flood.status("a59").steps["intake"].state == "waiting"

    await flood.settle(40)
    assert {f"b{n}" for n in range(4)} <= set(flood.fetcher.begun[:8])
    assert len(flood.local.heard) == 64


async def test_50_recordings_of_three_tenants_and_two_priorities_are_heard_in_the_order_of_the_rule(flood):
    """Tenants a and b have usual recordings, c urgent ones; some urgent ones come late. All wait for one model."""
    flood.fetcher.open.set()
    model, heard = asyncio.Semaphore(0), flood.local.transcribe
    rule, step = Rule(), f"transcribe.{flood.local.name}"

    async def held(path, request, tell):
        await model.acquire()
        return await heard(path, request, tell)

    async def come(tenant, numbers, *, urgent=False):
        flood.upload(tenant, len(numbers), 9 if urgent else 5, first=numbers[0])
        rule.come([f"{tenant}{n}" for n in numbers], urgent=urgent)
        await flood.settle(20)

    async def end(count):
        for _ in range(count):
            model.release()
            await flood.settle(3)
            rule.end()

    async def places():
        """By name, the places that are told of those that wait."""
        waiting = {name: job_id for job_id, name in flood.names.items() if job_id not in flood.local.heard}
        del waiting[rule.running]
        position = flood.fleet.database.queue_position
        return {name: await position(name[0], job_id, 1, flood.local.name) for name, job_id in waiting.items()}

    flood.local.transcribe = held
    await come("a", range(22))
    await come("b", range(15))
    await come("c", range(6), urgent=True)
    states = Counter(flood.status(name).steps[step].state for name in flood.names.values())
    assert states == {"running": 1, "queued": 42}
    told = await places()
    assert sorted(told.values()) == list(range(1, 43))
    assert [name for name, _ in sorted(told.items(), key=lambda item: item[1])[:6]] == [f"c{n}" for n in range(6)]
    await end(10)  # all urgent ones, and some others
    await come("c", range(6, 9), urgent=True)
    await end(1)
    await come("b", range(15, 17), urgent=True)
    assert sorted((await places()).values()) == list(range(1, 37))
    await end(5)
    await come("a", range(22, 24), urgent=True)
    await end(34)

    assert [flood.names[job_id] for job_id in flood.local.heard] == rule.heard
    assert len(rule.heard) == 50
    late = [rule.heard.index(name) for name in ("c6", "c7", "c8", "b15", "b16", "a22", "a23")]
    assert late == [11, 12, 13, 14, 15, 17, 18]


async def test_requests_to_a_recognizer_that_computes_here_do_not_look_while_they_wait(flood):
    flood.fetcher.open.set()
    flood.local.transcribe = _never
    flood.upload("a", 50)
    await flood.settle(20)
    seen = len(flood.fleet.log[f"asr.requests.{flood.local.name}"])
    await flood.settle(20)

    assert len(flood.fleet.log[f"asr.requests.{flood.local.name}"]) - seen <= 2 * 20 * 4
    assert flood.status("a49").steps[f"transcribe.{flood.local.name}"].state == "queued"


async def test_what_is_heard_is_looked_at_at_once(flood):
    model, heard = asyncio.Event(), flood.local.transcribe

    async def held(path, request, tell):
        await model.wait()
        return await heard(path, request, tell)

    flood.local.transcribe = held
    flood.fetcher.open.set()
    flood.upload("a", 1)
    await flood.settle(2)
    await flood.fleet.run(until=timedelta())
    topic = f"asr.requests.{flood.local.name}"
    [due] = [due for due, message in flood.fleet.database.outbox if message.topic == topic]
    assert due > flood.fleet.clock()

    model.set()
    async with asyncio.timeout(5):
        while due > flood.fleet.clock():
            await asyncio.sleep(0.01)
            [due] = [due for due, message in flood.fleet.database.outbox if message.topic == topic]


async def test_what_is_cancelled_while_it_stands_by_for_a_model_is_not_heard(flood):
    model, heard = asyncio.Semaphore(0), flood.local.transcribe

    async def held(path, request, tell):
        await model.acquire()
        return await heard(path, request, tell)

    flood.local.transcribe = held
    flood.fetcher.open.set()
    flood.upload("a", 4)
    flood.upload("b", 1)
    await flood.settle(10)
    assert [n async for n in cancel_all(flood.fleet.database, "a", OPEN, "not wanted")] == [4]

    for _ in range(5):
        model.release()
        await flood.settle(3)
    # The first was being heard already.
    assert [flood.names[job_id] for job_id in flood.local.heard] == ["a0", "b0"]


@dataclass
class Hearing:
    """What is heard until it is told to end, and what was stopped."""

    local: Local
    model: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    stopped: list[str] = field(default_factory=list)

    async def transcribe(self, path, request, tell):
        try:
            await self.model.acquire()
        except asyncio.CancelledError:
            self.stopped.append(request.job_id)
            raise
        return await Local.transcribe(self.local, path, request, tell)


@pytest.mark.parametrize("deleted", [False, True], ids=["cancelled", "deleted"])
async def test_what_is_cancelled_while_it_is_heard_is_stopped_and_the_next_one_is_heard(flood, monkeypatch, deleted):
    monkeypatch.setattr(stopping, "LOOK_S", 0.01)
    hearing, database = Hearing(flood.local), flood.fleet.database
    flood.local.transcribe = hearing.transcribe
    flood.fetcher.open.set()
    flood.upload("a", 1)
    flood.upload("b", 1)
    await flood.settle(5)
    [job_id] = [job_id for job_id, name in flood.names.items() if name == "a0"]
    if deleted:
        assert await database.begin_deletion(("a", job_id), "key_1")
    else:
        assert await cancel(database, [await database.job("a", job_id)], "not wanted") == 1
    async with asyncio.timeout(5):
        while not hearing.stopped:
            await asyncio.sleep(0.01)
    hearing.model.release()
    await flood.settle(5)

    assert [flood.names[job_id] for job_id in hearing.stopped] == ["a0"]
    assert [flood.names[job_id] for job_id in flood.local.heard] == ["b0"]
    assert not [uri for uri in flood.fetcher.store._blobs if job_id in uri and "hypotheses" in uri]
    if not deleted:
        [failed] = flood.fleet.events("job.failed")
        assert (failed["job_id"], failed["code"], failed["error"]) == (job_id, "cancelled", "not wanted")


async def _never(path, request, tell):
    await asyncio.Event().wait()


async def test_a_flood_is_cancelled_and_each_of_its_jobs_ends_once(flood):
    flood.fetcher.open.set()
    flood.upload("a", 60)
    flood.upload("b", 4)
    await flood.settle(2)
    database = flood.fleet.database
    ended = [n async for n in cancel_all(database, "a", OPEN, "not wanted")]
    again = [n async for n in cancel_all(database, "a", OPEN, "not wanted")]
    heard = len(flood.local.heard)
    await flood.settle(20)

    failed = flood.fleet.events("job.failed")
    assert again == []
    assert sum(ended) == len({event["job_id"] for event in failed}) == len(failed) > 40
    assert {(event["tenant_id"], event["code"], event["error"]) for event in failed} == {
        ("a", "cancelled", "not wanted")
    }
    assert flood.status("a59").status == "failed"
    assert {flood.names[job_id][0] for job_id in flood.local.heard[heard:]} <= {"b"}
    assert {f"b{n}" for n in range(4)} <= {flood.names[job_id] for job_id in flood.local.heard}


async def test_an_upload_does_not_overtake_an_earlier_one_of_its_tenant():
    database = MemoryDatabase()
    queue = FetchQueue(database, LeasedTasks(database, "here", limit=8))
    queue._waiting = {"a": 4}

    assert queue.must_wait(("a", "j"), 4, ("tenant a",))
    assert not queue.must_wait(("a", "j"), 3, ("tenant a",))
    assert not queue.must_wait(("b", "j"), 4, ("tenant b",))
