"""Reports: the trail and the metrics of a job, the numbers and the usage of a tenant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from schemas.events.job import StepState
from schemas.jobs.outcome import Failure, Outcome, RequestChange, Step, failed_progress
from schemas.jobs.rows import ProviderRequest, Usage
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.memory.reading.reports import MemoryReports
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from web.resources.reports.audit import AuditTrail
from web.resources.reports.metrics import JobMetrics
from web.resources.reports.stats import TenantStats
from web.resources.reports.usage import TenantUsage

PRICES = {"a:audio_seconds": 0.01, "gemini:requests": 0.5}


@pytest.fixture
async def worker():
    database = MemoryDatabase()
    reader, reports = MemoryReader(database), MemoryReports(database)
    resources = [
        JobMetrics(reader, reports, PRICES),
        AuditTrail(reader, reports),
        TenantStats(reports),
        TenantUsage(reports, PRICES),
    ]
    async with Worker(database, reader=reader, resources=resources) as worker:
        yield worker


async def did(worker, what, job_id="j", seconds=0.5, stage="transcribe.a", **more):
    outcome = Outcome(tenant_id="acme", job_id=job_id, audit=what, **more)
    await worker.database.commit([Step(stage, uuid4(), outcome, seconds=seconds)])


async def test_a_jobs_trail_is_paged(worker):
    await worker.created(reference="call 7")
    for n in range(3):
        await did(worker, f"step {n}", error="slow" if n else None)
    first = await worker.get("/jobs/call%207/audit?limit=2")
    page = await first.json()
    second = await worker.json(f"/jobs/j/audit?cursor={page['next']}")

    whole = [entry["what"] for entry in page["entries"] + second["entries"]]
    assert whole == ["completed", "step 0", "step 1", "step 2"]
    assert {name: page["entries"][1][name] for name in ("step", "run", "duration_ms", "attempt", "error")} == {
        "step": "transcribe.a",
        "run": 1,
        "duration_ms": 500.0,
        "attempt": 0,
        "error": None,
    }
    assert second["next"] is None
    assert str(first.links["next"]["url"]).endswith(f"limit=2&cursor={page['next']}")


@pytest.mark.parametrize("path", ["/jobs/j/audit", "/jobs/j/metrics", "/tenants/acme/stats", "/tenants/acme/usage"])
async def test_what_is_another_tenants_is_answered_like_what_does_not_exist(worker, path):
    await worker.created()
    theirs = await problem(await worker.get(path, BOLT), 404)
    nobodys = await problem(await worker.get(path.replace("/j/", "/x/").replace("acme", "nobody"), BOLT), 404)

    assert theirs == nobodys
    assert (await worker.get(path, ROOT)).status == 200


@pytest.mark.parametrize("cursor", ["x", "WyJhIl0", "LTE", "MS41", "dHJ1ZQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTk"])
async def test_a_cursor_that_is_none_is_refused(worker, cursor):
    await worker.created()

    for path in ("/jobs/j/audit", "/tenants/acme/usage", "/tenants/acme/jobs"):
        assert "use `next`" in (await problem(await worker.get(f"{path}?cursor={cursor}"), 400))["detail"]


async def test_metrics_tell_where_the_time_went_and_what_it_cost(worker):
    steps = {"intake": StepState(state="done", attempts=1)}
    request = ProviderRequest(tenant_id="acme", job_id="j", run=1, provider="a", marker="m")
    await worker.created(duration_ms=10_000, steps=steps)
    await did(worker, "asked", stage="intake", new_requests=(request,))
    await did(worker, "polled", seconds=0.25)
    used = [("a", "audio_seconds", 10.0), ("b", "requests", 2.0)]
    rows = [Usage(tenant_id="acme", job_id="j", run=1, provider=p, unit=u, ref="1", quantity=q) for p, u, q in used]
    await worker.database.record_usage(rows)
    change = RequestChange(
        run=1, provider="a", token=None, columns={"state": "done", "word_count": 3, "confidence": 0.9}
    )
    await did(worker, "done", seconds=0.5, request=change)
    running = await worker.json("/jobs/j/metrics")
    await worker.finished()
    shown = await worker.json("/jobs/j/metrics")

    assert (running["elapsed_seconds"], running["real_time_factor"], running["quality"]) == (None, None, None)
    assert shown["audio_seconds"] == 10.0
    assert shown["real_time_factor"] == pytest.approx(shown["elapsed_seconds"] / 10, abs=1e-4)
    step = shown["steps"]["transcribe.a"]
    assert (step["state"], step["working_seconds"], step["events"], step["retries"]) == ("done", 0.75, 2, 0)
    assert step["waiting_seconds"] == 0
    assert (shown["recognizers"]["a"]["words"], shown["recognizers"]["a"]["state"]) == (3, "done")
    assert [(row["unit"], row["cost"]) for row in shown["usage"]] == [("audio_seconds", 0.1), ("requests", None)]
    assert shown["cost"] == 0.1


async def test_stats_have_every_day_and_the_newest_failures(worker):
    await worker.created("a", duration_ms=90_000)
    await worker.created("b", duration_ms=30_000)
    await worker.finished("a")
    progress = failed_progress(1, "intake", Failure("b holds no audio", "unsupported_media", 1))
    await worker.commit("intake", Outcome(tenant_id="acme", job_id="b", progress=progress))

    shown = await worker.json("/tenants/acme/stats")

    today = shown["days"][-1]
    assert len({day["day"] for day in shown["days"]}) == 7
    assert today == {
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "jobs": 2,
        "by_status": {"completed": 1, "failed": 1},
        "audio_minutes": 2.0,
    }
    assert (shown["jobs"], shown["audio_minutes"], shown["completion"]["jobs"]) == (2, 2.0, 1)
    assert shown["disputed_share"] == 0.5
    assert [(f["code"], f["jobs"], f["newest"][0]["job_id"]) for f in shown["failures"]] == [
        ("unsupported_media", 1, "b")
    ]
    assert (await worker.json("/tenants/acme/stats", ROOT))["failures"][0]["newest"][0]["link"].endswith("?tenant=acme")


async def test_usage_is_paged_with_its_cost(worker):
    used = [("j", "a", 5.0), ("j", "b", 1.0), ("k", "a", 2.5)]
    await worker.database.record_usage(
        [
            Usage(tenant_id="acme", job_id=j, run=1, provider=p, unit="audio_seconds", ref="1", quantity=q)
            for j, p, q in used
        ]
    )
    first = await worker.json("/tenants/acme/usage?by=job&limit=2")
    second = await worker.json(f"/tenants/acme/usage?by=job&limit=2&cursor={first['next']}")
    by_day = await worker.json("/tenants/acme/usage")

    rows = first["rows"] + second["rows"]
    assert [(row["job_id"], row["provider"], row["quantity"], row["cost"]) for row in rows] == [
        ("j", "a", 5.0, 0.05),
        ("j", "b", 1.0, None),
        ("k", "a", 2.5, 0.025),
    ]
    assert second["next"] is None
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert [(row["day"], row["quantity"]) for row in by_day["rows"]] == [(today, 7.5), (today, 1.0)]
    none = await worker.json("/tenants/acme/usage?from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z&by=provider")
    assert none["rows"] == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=2020-01-01T00:00:00Z", "from: use at most 92 days"),
        ("from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z&by=job", "from: use at most 31 days"),
        ("from=2026-03-01T00:00:00Z&to=2026-01-01T00:00:00Z", "to: use a time that is not before"),
        ("from=yesterday", "from: "),
        ("by=week", "by: use one of 'day'"),
        ("since=2026-01-01T00:00:00Z", "since: there is no such parameter here; there are: by, cursor, from"),
    ],
)
async def test_a_time_that_cannot_be_reported_on_is_refused(worker, query, says):
    assert says in (await problem(await worker.get(f"/tenants/acme/usage?{query}"), 400))["detail"]


async def test_a_report_that_begins_in_the_future_is_empty(worker):
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    assert (await worker.json("/tenants/acme/usage", ACME, params={"from": later}))["rows"] == []
