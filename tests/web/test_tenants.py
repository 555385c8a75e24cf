"""Tenants see their own jobs only; operators see all, and name the tenant."""

from __future__ import annotations

import pytest
from yarl import URL

from tests.web.service import (
    ACME,
    BOLT,
    NAMES,
    PATHS,
    ROOT,
    UUID,
    Worker,
    by,
    lines,
    problem,
    raw_response,
)
from web.live.status_feed import StatusFeeds


@pytest.mark.parametrize("path", PATHS)
async def test_another_tenants_job_is_answered_exactly_like_an_unknown_one(worker, path):
    await worker.created("theirs", "bolt")
    await worker.stored_audio("theirs", "bolt")
    await worker.finished("theirs", "bolt")
    foreign = await worker.get(path.format("theirs"))
    unknown = await worker.get(path.format("unknown"))

    assert await problem(foreign, 404) == await problem(unknown, 404)
    assert {k: v for k, v in foreign.headers.items() if k not in ("Date", "X-Request-ID")} == {
        k: v for k, v in unknown.headers.items() if k not in ("Date", "X-Request-ID")
    }
    assert (await worker.get(path.format("theirs"), BOLT)).status == 200
    assert (await worker.get(path.format("theirs"), ROOT)).status == 200


async def test_another_tenants_list_is_answered_like_that_of_an_unknown_tenant(worker):
    await worker.created("theirs", "bolt")
    foreign, unknown = await worker.get("/tenants/bolt/jobs"), await worker.get("/tenants/nobody/jobs")

    assert await problem(foreign, 404) == await problem(unknown, 404)
    assert len((await worker.json("/tenants/bolt/jobs", ROOT))["jobs"]) == 1


async def test_every_caller_can_list_the_tenants_that_it_sees(worker):
    await worker.created("a")
    await worker.created("b", "bolt")

    assert await worker.json("/tenants", BOLT) == {"tenants": ["bolt"], "operator": False}
    assert await worker.json("/tenants", ROOT) == {"tenants": ["acme", "bolt"], "operator": True}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
async def test_two_tenants_with_jobs_of_one_name_see_their_own(both, path, name):
    for headers in (ACME, BOLT):
        assert (await by(both, path, name, headers)).status == 200
    if path in ("/jobs/{}/status", "/jobs/{}/transcript"):
        for tenant, headers in (("acme", ACME), ("bolt", BOLT)):
            shown = await (await by(both, path, name, headers)).json()
            assert (shown["tenant_id"], shown["job_id"]) == (tenant, UUID)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
async def test_an_operator_chooses_among_tenants_that_have_a_job_of_the_same_name(both, path, name):
    ambiguous = await problem(await by(both, path, name, ROOT), 409)
    answer = await by(both, path, name, ROOT, tenant="bolt")

    assert ambiguous["tenants"] == ["acme", "bolt"]
    assert "?tenant=" in ambiguous["detail"]
    assert answer.status == 200
    for tenant in ("nobody", "../x"):
        await problem(await by(both, path, name, ROOT, tenant=tenant), 404)


@pytest.mark.parametrize("path", PATHS)
async def test_a_tenant_cannot_name_another_tenant(both, path):
    assert (await by(both, path, UUID, ACME, tenant="acme")).status == 200
    foreign = await problem(await by(both, path, UUID, ACME, tenant="bolt"), 404)

    assert foreign == await problem(await by(both, path, "unknown", ACME), 404)


async def test_links_lead_an_operator_to_the_job_that_was_shown(both):
    for path in ("/jobs/{}/status", "/jobs/{}/transcript"):
        shown = await (await by(both, path, UUID, ROOT, tenant="bolt")).json()
        for kind in shown["links"].keys() - {"self", "reprocess"}:  # which no resource here serves
            assert (await both.get(shown["links"][kind], ROOT)).status == 200
    listed = await both.json("/tenants/bolt/jobs", ROOT)
    assert (await both.get(listed["jobs"][0]["links"]["transcript"], ROOT)).status == 200


async def test_an_event_stream_by_reference_has_statuses_of_its_own_tenants_job_only():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created(UUID, "acme", reference="call 1")
        await worker.created(UUID, "bolt", reference="call 1")
        response = await worker.get("/jobs/call 1/events")
        await lines(response, 1)
        await worker.moved("completed", UUID, "bolt")
        worker.feeds.publish(await worker.tabled(UUID, "bolt"))
        await worker.moved("transcribing", UUID, "acme")
        worker.feeds.publish(await worker.tabled(UUID, "acme"))
        [(_, status)] = await lines(response, 1)

        assert (status["tenant_id"], status["status"]) == ("acme", "transcribing")


async def test_versions_of_one_tenants_job_do_not_affect_another_tenants_job_of_the_same_id():
    """Both have the same id, and one is further than the other."""
    async with Worker() as worker:
        await worker.created(UUID, "acme")
        await worker.moved("transcribing", UUID, "acme")
        await worker.tabled(UUID, "acme")
        await worker.created(UUID, "bolt")

        assert (await worker.json(f"/jobs/{UUID}/status", ACME))["version"] == 2
        assert (await worker.json(f"/jobs/{UUID}/status", BOLT))["version"] == 1


async def test_names_that_a_path_cannot_contain_are_answered_with_404(worker):
    for job_id in ("..", "%2e%2e", "a%2Fb", "..%2f..%2fetc", "x" * 129, "a%00", "%ff", "%C3%A9", ".hidden", "a%0d%0ab"):
        for path in PATHS:
            url = URL(str(worker.client.make_url("/"))[:-1] + path.format(job_id), encoded=True)
            response = await worker.client.session.get(url, headers=ACME)
            await problem(response, 404)


async def test_a_path_with_dots_is_not_resolved(worker):
    """Not by a client that tidies paths up first."""
    await worker.created()
    for path in (b"/jobs/../jobs/j/status", b"/static/../app.py", b"/static/%2e%2e/app.py", b"//jobs/j/status"):
        answer = await raw_response(
            worker, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nX-API-Key: acme-key\r\n\r\n"
        )

        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:200]
