"""The list of a tenant's jobs: pages, statuses, parameters."""

from __future__ import annotations

import pytest

from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress
from tests.web.service import (
    problem,
)


async def test_the_next_page_begins_where_the_last_one_ended(worker):
    for n in range(5):
        await worker.created(f"j{n}")
    first = await worker.json("/tenants/acme/jobs?limit=3")
    second = await worker.json(f"/tenants/acme/jobs?limit=3&cursor={first['next']}")

    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == ["j4", "j3", "j2", "j1", "j0"]
    assert second["next"] is None


async def test_a_page_is_limited_in_bytes_and_the_next_begins_where_it_was_cut(worker, monkeypatch):
    monkeypatch.setattr("web.resources.jobs.listing.PAGE_BYTES", 5_000)
    for n in range(12):
        await worker.created(f"j{n:02}")
        failed = Progress(run=1, stage="intake", step=StepState(state="failed", error="x" * 1_500), status="failed")
        await worker.commit("intake", Outcome(tenant_id="acme", job_id=f"j{n:02}", progress=failed))
    seen, cursor = [], ""
    while cursor is not None:
        response = await worker.get(f"/tenants/acme/jobs?limit=10{cursor and '&cursor=' + cursor}")
        assert len(await response.read()) < 6_000
        page = await response.json()
        seen += [job["job_id"] for job in page["jobs"]]
        cursor = page["next"]

    assert seen == [f"j{n:02}" for n in reversed(range(12))]


async def test_a_list_can_be_filtered_by_status(worker):
    await worker.created("a")
    await worker.created("b")
    await worker.moved("failed", "a")

    failed = await worker.json("/tenants/acme/jobs?status=failed")

    assert [job["job_id"] for job in failed["jobs"]] == ["a"]
    assert failed["jobs"][0]["progress"] == 1.0


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "limit: use a whole number from 1 to 500"),
        ("limit=501", "limit: use a whole number"),
        ("limit=99999999999999999999", "limit: use a whole number"),
        ("limit=-1", "limit: use a whole number"),
        ("limit=ten", "limit: use a whole number"),
        ("cursor=broken", "cursor: use `next`"),
        ("cursor=%00", "cursor: use `next`"),
        ("status=done", "status: use some of 'uploaded'"),
        ("status=failed,", "status: use some of"),
        ("metadata=agent", "metadata: use key:value"),
        ("metadata=a:1,:2", "metadata: use key:value"),
        ("created_from=2026-05-01", "created_from: "),
        ("created_to=2026-05-01T00:00:00", "created_to: "),
        ("language=en_US", "language: "),
        ("order=size", "order: use one of 'newest'"),
        ("stauts=failed", "stauts: there is no such parameter here; there are: "),
    ],
)
async def test_an_invalid_parameter_is_named_with_valid_values(worker, query, says):
    assert says in (await problem(await worker.get(f"/tenants/acme/jobs?{query}"), 400))["detail"]


async def test_a_list_is_narrowed_by_all_that_is_asked_for(worker):
    await worker.created("a", reference="order 71", metadata={"agent": "Zoë, the 2nd", "team": 7}, language="de")
    await worker.created("b", reference="order 8", metadata={"agent": "Zoë, the 2nd", "team": 8})
    await worker.created("c")
    await worker.moved("failed", "c")

    async def ids(**query):
        return [job["job_id"] for job in (await worker.json("/tenants/acme/jobs", params=query))["jobs"]]

    assert await ids(order="oldest") == ["a", "b", "c"]
    assert await ids(filename="ZOË", limit="2") == ["c", "b"]
    assert await ids(reference_prefix="order") == ["b", "a"]
    assert await ids(reference="order 8") == ["b"]
    assert await ids(metadata=r"agent:Zoë\, the 2nd,team:7") == ["a"]
    assert await ids(status="failed,completed") == ["c"]
    assert await ids(language="DE") == ["a"]
    assert await ids(completed_to="2026-05-01T00:00:00Z") == await ids(created_to="2026-05-01T00:00:00+02:00") == []
    assert await ids(completed_from="2026-05-01T00:00:00Z") == ["c"]


async def test_the_next_page_is_linked_with_the_same_filters(worker):
    for n in range(3):
        await worker.created(f"j{n}")
    first = await worker.get("/tenants/acme/jobs?limit=2&filename=zo%C3%AB&order=oldest")
    second = await worker.json(str(first.links["next"]["url"].relative()))

    assert [job["job_id"] for job in second["jobs"]] == ["j2"]
    assert "rel" in first.links["next"]
    assert "Link" not in (await worker.get("/tenants/acme/jobs")).headers


@pytest.mark.parametrize("moment", ["0.5", "1780000000", "2026-05-01"])
async def test_a_moment_is_a_date_and_a_time(worker, moment):
    await problem(await worker.get(f"/tenants/acme/jobs?created_from={moment}"), 400)
