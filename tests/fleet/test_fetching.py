"""Recordings whose host does not deliver at once: retried for minutes, reported meanwhile, and failed with the
duration.
"""

from __future__ import annotations

import asyncio
import re

import orjson
import pytest
from aiohttp import web

from agents.media.source.audio_source import AudioSource
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages import intake, registry
from agents.stages.uploads.runs import Runs
from schemas.envelope import Record, decode
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from tests.fleet.conftest import JOB, FakeRecognizer, recording
from tests.servers.hosts import raw, serving

LOOPBACK = frozenset({"127.0.0.1"})


class Host:
    """Answers with a recording after a number of seconds of the fleet's time, and with something else until then."""

    def __init__(self, scenario, seconds, status, **headers):
        self._clock = scenario.fleet.clock
        self._began = self._clock()
        self._seconds, self._status, self._headers = seconds, status, headers
        #: Seconds after the beginning at which it was asked.
        self.asked = []

    async def answer(self, _):
        at = (self._clock() - self._began).total_seconds()
        self.asked.append(at)
        if at < self._seconds:
            headers = {name.replace("_", "-"): value for name, value in self._headers.items()}
            return web.Response(status=self._status, headers=headers)
        return web.Response(body=recording())


def steps(scenario):
    return [status["steps"]["intake"] for status in scenario.fleet.events("job.status") if "intake" in status["steps"]]


@pytest.mark.parametrize(
    ("seconds", "status", "headers"),
    [
        (15, 503, {}),
        (200, 502, {}),
        (120, 404, {}),  # announced before it was there
        (30, 202, {}),
        (20, 429, {"Retry_After": "20"}),
        (900, 503, {"Retry_After": "600"}),
    ],
)
async def test_a_host_that_delivers_after_a_while_is_waited_for(make_scenario, seconds, status, headers):
    scenario = make_scenario(FakeRecognizer("a"), allow_hosts=LOOPBACK)
    host = Host(scenario, seconds, status, **headers)
    async with serving(host.answer) as base:
        await scenario.upload(audio_uri=f"{base}/call.wav")
        await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    retrying = [step for step in steps(scenario) if step["state"] == "retrying"]
    assert [step["attempts"] for step in retrying] == list(range(1, len(host.asked)))
    assert all(step["error"] == f"audio_uri: 127.0.0.1 answered {status}" for step in retrying)
    assert [step["state"] for step in steps(scenario)][-1] == "done"
    asked = float(headers.get("Retry_After", 0))
    assert all(later - earlier >= asked for earlier, later in zip(host.asked, host.asked[1:], strict=False))


@pytest.mark.parametrize(
    ("status", "headers", "tried", "seconds"),
    [
        (503, {}, r"; tried (9|10|11|12) times in [345] minutes$", (200, 300)),
        (404, {}, r"; tried (9|10|11|12) times in [345] minutes$", (200, 300)),
        (429, {"Retry_After": "1200"}, r"; tried 4 times in 60 minutes$", (3600, 3600)),
        (503, {"Retry_After": "86400"}, r"; tried 2 times in 60 minutes$", (3600, 3600)),
    ],
)
async def test_a_host_that_never_delivers_is_given_up_after_minutes(make_scenario, status, headers, tried, seconds):
    scenario = make_scenario(FakeRecognizer("a"), allow_hosts=LOOPBACK)
    host = Host(scenario, 1e9, status, **headers)
    async with serving(host.answer) as base:
        await scenario.upload(audio_uri=f"{base}/call.wav")
        await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert scenario.terminal() == [("job.failed", JOB, 1)]
    assert failed["error"].startswith(f"audio_uri: 127.0.0.1 answered {status}; ")
    assert (failed["code"], failed["attempts"]) == ("retries_exhausted", len(host.asked))
    assert re.search(tried, failed["error"])
    assert seconds[0] <= host.asked[-1] <= seconds[1]
    assert len(scenario.fleet.log["intake.due.dlq"]) == 1


@pytest.mark.parametrize(
    "uri", ["https://[", "https://@/", "https://[::1%25a%25b]", f"https://{'a' * 300}/", "https://h:0"]
)
async def test_a_url_that_is_none_fails_its_job_at_once(make_scenario, uri):
    scenario = make_scenario(FakeRecognizer("a"))
    began = scenario.fleet.clock()
    await scenario.upload(audio_uri=uri)
    await scenario.fleet.run()

    [failed] = scenario.fleet.events("job.failed")
    assert (failed["code"], failed["attempts"]) == ("refused_location", 1)
    assert failed["error"].startswith("audio_uri: ")
    assert scenario.fleet.log["job.failed"][0].timestamp_ms / 1000 == pytest.approx(began.timestamp(), abs=1)


def job(number: int) -> str:
    return f"{number:08}-0000-4000-8000-000000000000"


def uploaded(number: int, tenant: str, uri: str):
    """The upload as intake gets it."""
    data = {"tenant_id": tenant, "job_id": job(number), "audio_uri": uri, "filename": "a.wav"}
    record = Record("audio.uploaded", 0, number, None, orjson.dumps(data))
    return decode(record, {t.name: t for t in registry.all_topics(("a",))})


@pytest.mark.parametrize("tenants", [1, 5])
async def test_uploads_that_drip_leave_slots_to_other_tenants(probe_pool, monkeypatch, tenants):
    """70 recordings from a host that sends a byte every 20 s; another tenant's, from another host, at once."""
    database, store = MemoryDatabase(), MemoryStore()
    audio_source = AudioSource(store, probe_pool, (), frozenset({"127.0.0.1", "localhost"}))
    work = LeasedTasks(database, "test", limit=64)
    it = intake.Intake(database, audio_source, work, Runs(("a",), 3600))
    own = await store.put("fast/in/a.wav", recording(), "audio/wav")

    async def deliver(_):
        return web.Response(body=recording())

    drip = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", *[b"x", 20.0] * 9
    async with raw(*drip) as slow, serving(deliver) as fast:
        uploads = [uploaded(n, f"slow{n % tenants}", f"{slow}/{n}.wav") for n in range(70)]
        with monkeypatch.context() as patch:
            patch.setattr(intake, "QUICK_S", 0.1)
            begun = await asyncio.gather(*map(it.handle, uploads))
        async with asyncio.timeout(2):
            for number, uri in enumerate((own.uri, f"{fast.replace('127.0.0.1', 'localhost')}/b.wav")):
                assert (await it.handle(uploaded(number, "fast", uri))).new_requests
        held = [work.progress(f"fetch/slow{n % tenants}/{job(n)}/1") is not None for n in range(70)]
        await work.close()
    await audio_source.close()

    assert all(outcome.create.status == "uploaded" for outcome in begun)
    assert sum(held) == 32  # of the host's share, whoever's they are


async def test_no_share_holds_more_slots_than_are_free_beside_it():
    work, going = LeasedTasks(MemoryDatabase(), "test", limit=12), asyncio.Event()

    async def begun(number: int, *shares: str) -> bool:
        await work.run(f"{number}", lambda _: going.wait(), 0, shares=shares)
        return work.progress(f"{number}") is not None

    async def begin(first: int, *shares: str) -> int:
        return sum(await asyncio.gather(*(begun(first + n, *shares) for n in range(20))))

    assert [await begin(100 * n, f"tenant {n}") for n in range(5)] == [6, 3, 2, 1, 0]
    going.set()
    await work.close()


async def test_keys_that_ask_at_once_get_no_more_slots_than_there_are():
    work, going = LeasedTasks(MemoryDatabase(), "test", limit=2), asyncio.Event()
    await asyncio.gather(*(work.run(f"{n}", lambda _: going.wait(), 0) for n in range(40)))

    assert sum(work.progress(f"{n}") is not None for n in range(40)) == 2
    going.set()
    await work.close()
