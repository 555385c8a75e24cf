"""Probes, metrics, errors and headers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from schemas.errors import Unavailable
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.web.service import (
    ACME,
    ROOT,
    Worker,
    problem,
)
from web.ports import Health


async def test_probes_list_the_state_of_each_part(worker):
    worker.health = Health(alive=True, ready=False, details={"database": "away"})

    assert (await worker.get("/healthz", {})).status == 200
    ready = await worker.get("/readyz", {})
    assert ready.status == 503
    assert (await ready.json())["details"] == {"database": "away"}
    worker.health = replace(worker.health, alive=False)
    assert (await worker.get("/healthz", {})).status == 503


async def test_simultaneous_probes_share_one_check():
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


async def test_a_health_check_that_hangs_fails_readiness_only(monkeypatch):
    async def hang():
        await asyncio.sleep(60)

    monkeypatch.setattr("web.resources.health.PROBE_S", 0.1)
    async with Worker(health=hang) as worker:
        assert (await worker.get("/healthz", {})).status == 200
        assert (await worker.get("/readyz", {})).status == 503


async def test_metrics_may_be_collected_synchronously_or_asynchronously():
    async def slowly():
        return b"later 1\n"

    async with Worker() as at_once, Worker(metrics=slowly) as later:
        now = await at_once.get("/metrics", ROOT)
        assert await now.text() == "concord_jobs 1\n"
        assert now.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert await (await later.get("/metrics", ROOT)).text() == "later 1\n"


class Away(MemoryReader):
    """A database that does not answer, and says more than strangers should read."""

    def __init__(self):
        super().__init__(MemoryDatabase())

    async def find(self, *_, **__):
        raise Unavailable("memory://10.0.0.7 does not answer for root-key")

    job = jobs = status_version = transcript = files = tenants = find


async def test_while_the_database_is_away_answers_are_503_and_do_not_describe_it():
    async with Worker(reader=Away()) as worker:
        for path in ("/jobs/j/status", "/jobs/j/transcript", "/jobs/j/audio", "/jobs/j/events", "/tenants/acme/jobs"):
            response = await worker.get(path)
            document = await problem(response, 503)
            assert response.headers["Retry-After"] == "2"
            assert "10.0.0.7" not in document["detail"]


async def test_an_internal_error_has_an_incident_number_in_the_log_and_no_traceback_in_the_answer(caplog):
    def broken():
        raise RuntimeError("root-key is in file: memory://secret.py")

    async with Worker(metrics=broken) as worker:
        document = await problem(await worker.get("/metrics", ROOT), 500)

        assert document["incident"] in caplog.text
        assert "RuntimeError" in caplog.text


async def test_unknown_paths_and_methods_are_answered_with_problems(worker):
    assert "/openapi.json" in (await problem(await worker.get("/nothing"), 404))["detail"]
    response = await worker.client.post("/jobs/j/status", headers=ACME)
    await problem(response, 405)
    assert response.headers["Allow"] == "GET,HEAD"


async def test_no_answer_is_cached_or_sent_as_a_referrer(worker):
    await worker.created()
    for path in ("/jobs/j/status", "/tenants/acme/jobs", "/jobs/unknown/status", "/metrics"):
        headers = (await worker.get(path)).headers

        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers
