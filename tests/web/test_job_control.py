"""Jobs are shown, cancelled and reprocessed over HTTP."""

from __future__ import annotations

import pytest
import pytest_asyncio

from schemas.jobs.outcome import Outcome, RequestChange
from tests.web.service import ACME, BOLT, problem
from tests.web.uploading import uploading

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    """One for all tests, each of which uploads a recording of its own."""
    async with uploading() as service:
        yield service


async def uploaded(service):
    return (await (await service.upload()).json())["job_id"]


async def heard(service, job_id, run=1):
    """Both recognizers have answered, and the run is completed."""
    for name in ("a", "b"):
        columns = {"state": "done", "hypothesis_uri": f"memory://{name}-{run}"}
        change = RequestChange(run=run, provider=name, token=None, columns=columns)
        await service.commit(f"transcribe.{name}", Outcome(tenant_id="acme", job_id=job_id, request=change))
    assert (await service.database.job("acme", job_id)).status == "reconciling"


async def ended(service):
    job_id = await uploaded(service)
    await heard(service, job_id)
    await service.moved("completed", job_id)
    return job_id


async def post(service, path, body=None, headers=ACME):
    more = {} if body is None else {"json": body}
    return await service.client.post(path, headers=headers, **more)


async def requested(service, job_id, run):
    """By recognizer, the state of the request of a run."""
    return {request.provider: request.state for request in await service.database.requests("acme", job_id, run)}


async def test_a_cancelled_job_fails_once_with_its_reason(service):
    job_id = await uploaded(service)
    before = service.published()
    answer = await post(service, f"/jobs/{job_id}/cancel", {"reason": "uploaded by mistake"})
    view = await answer.json()

    assert (answer.status, view["status"], view["code"]) == (200, "failed", "cancelled")
    assert view["reason"] == "uploaded by mistake"
    assert (service.published() - before)["job.failed"] == 1
    assert "the job is failed" in (await problem(await post(service, f"/jobs/{job_id}/cancel"), 409))["detail"]
    assert (service.published() - before)["job.failed"] == 1


async def test_a_job_that_has_not_ended_is_not_reprocessed(service):
    job_id = await uploaded(service)
    refused = await problem(await post(service, f"/jobs/{job_id}/reprocess"), 409)

    assert "the job is transcribing" in refused["detail"]


@pytest.mark.parametrize(
    ("body", "states", "status"),
    [
        (None, {"a": "done", "b": "done"}, "reconciling"),
        ({"from": "reconcile"}, {"a": "done", "b": "done"}, "reconciling"),
        ({"from": "transcribe"}, {"a": "waiting", "b": "waiting"}, "transcribing"),
        ({"from": "transcribe", "recognizers": ["b"]}, {"a": "done", "b": "waiting"}, "transcribing"),
        ({"recognizers": ["a"]}, {"a": "waiting", "b": "done"}, "transcribing"),
    ],
)
async def test_recognizers_are_asked_again_as_the_request_says(service, body, states, status):
    job_id = await ended(service)
    answer = await post(service, f"/jobs/{job_id}/reprocess", body)
    view = await answer.json()

    assert (answer.status, view["run"], view["status"]) == (202, 2, status)
    assert await requested(service, job_id, 2) == states
    assert await requested(service, job_id, 1) == {"a": "done", "b": "done"}


async def test_a_job_that_nobody_has_heard_is_not_reconciled(service):
    job_id = await uploaded(service)
    await post(service, f"/jobs/{job_id}/cancel")
    refused = await problem(await post(service, f"/jobs/{job_id}/reprocess", {"from": "reconcile"}), 409)

    assert "no recognizer has heard" in refused["detail"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"recognizers": ["c"]}, "there are a, b"),
        ({"from": "reconcile", "recognizers": ["a"]}, "none is asked"),
        ({"from": "nowhere"}, "use one of"),
        ({"recognizers": []}, "recognizers"),
    ],
)
async def test_what_cannot_be_reprocessed_is_said(service, body, named):
    job_id = await ended(service)

    assert named in (await problem(await post(service, f"/jobs/{job_id}/reprocess", body), 400))["detail"]


@pytest.mark.parametrize("action", ["cancel", "reprocess"])
async def test_another_tenants_job_is_answered_like_an_unknown_one(service, action):
    job_id = await uploaded(service)
    foreign = await problem(await post(service, f"/jobs/{job_id}/{action}", headers=BOLT), 404)

    assert foreign == await problem(await post(service, f"/jobs/unknown/{action}", headers=BOLT), 404)


async def test_who_did_it_is_in_the_audit_log(service):
    job_id = await ended(service)
    await post(service, f"/jobs/{job_id}/reprocess")
    await post(service, f"/jobs/{job_id}/cancel")

    entries = [entry for entry, _ in service.database.audit.values() if entry.job_id == job_id]
    by = [(entry.step, entry.author) for entry in entries if entry.author]
    assert by == [("upload", "environment:acme"), ("reprocess", "environment:acme"), ("cancel", "environment:acme")]
