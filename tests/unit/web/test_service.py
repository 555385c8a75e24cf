"""Probes, metrics, errors and headers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from schemas.errors import Unavailable
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.unit.web.service import (
    ACME,
    Worker,
    problem,
)
from web.ports import Health


async def test_probes_say_what_is_wrong(worker):
    worker.health = Health(alive=True, ready=False, details={"database": "away"})

    assert (await worker.get("/healthz", {})).status == 200
    ready = await worker.get("/readyz", {})
    assert ready.status == 503
    assert (await ready.json())["details"] == {"database": "away"}
    worker.health = replace(worker.health, alive=False)
    assert (await worker.get("/healthz", {})).status == 503


async def test_probes_at_one_moment_are_one_check():
    """Who asks needs no key, and a check takes one of the connections that the stages have."""
    checks = []

    async def check():
        checks.append(1)
        await asyncio.sleep(0.1)
        return Health(alive=True, ready=True, details={})

    async with Worker(health=check) as worker:
        answers = await asyncio.gather(*(worker.get("/readyz", {}) for _ in range(50)))

        assert {answer.status for answer in answers} == {200}
        assert len(checks) < 5


async def test_a_check_that_hangs_is_no_reason_to_restart(monkeypatch):
    async def hang():
        await asyncio.sleep(60)

    monkeypatch.setattr("web.resources.health.PROBE_S", 0.1)
    async with Worker(health=hang) as worker:
        assert (await worker.get("/healthz", {})).status == 200
        assert (await worker.get("/readyz", {})).status == 503


async def test_metrics_may_be_collected_at_once_or_take_a_while():
    async def slowly():
        return b"later 1\n"

    async with Worker() as at_once, Worker(metrics=slowly) as later:
        now = await at_once.get("/metrics", {})
        assert await now.text() == "concord_jobs 1\n"
        assert now.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert await (await later.get("/metrics", {})).text() == "later 1\n"


class Away(MemoryReader):
    """A database that does not answer, and says more than strangers should read."""

    def __init__(self):
        super().__init__(MemoryDatabase())

    async def find(self, *_, **__):
        raise Unavailable("memory://10.0.0.7 does not answer for root-key")

    job = jobs = status_version = transcript = files = tenants = find


async def test_a_database_that_is_away_is_asked_to_be_patient_with_and_not_described():
    async with Worker(reader=Away()) as worker:
        for path in ("/jobs/j/status", "/jobs/j/transcript", "/jobs/j/audio", "/jobs/j/events", "/tenants/acme/jobs"):
            response = await worker.get(path)
            told = await problem(response, 503)
            assert response.headers["Retry-After"] == "2"
            assert "10.0.0.7" not in told["detail"]


async def test_a_fault_of_ours_has_a_number_in_the_log_and_no_traceback_for_the_asker(caplog):
    def broken():
        raise RuntimeError("root-key is in file: memory://secret.py")

    async with Worker(metrics=broken) as worker:
        told = await problem(await worker.get("/metrics", {}), 500)

        assert told["incident"] in caplog.text
        assert "RuntimeError" in caplog.text


async def test_what_is_not_there_and_what_does_not_go_are_problems_too(worker):
    assert "/openapi.json" in (await problem(await worker.get("/nothing"), 404))["detail"]
    response = await worker.client.post("/jobs/j/status", headers=ACME)
    await problem(response, 405)
    assert response.headers["Allow"] == "GET,HEAD"


async def test_every_answer_is_kept_by_nobody_and_told_to_nobody(worker):
    await worker.created()
    for path in ("/jobs/j/status", "/tenants/acme/jobs", "/jobs/unknown/status", "/metrics"):
        headers = (await worker.get(path)).headers

        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers
