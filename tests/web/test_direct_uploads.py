"""Long recordings: begun, sent straight into the store or by a URL with a token, and completed."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from tests.web.service import ACME, BOLT, problem
from tests.web.uploading import DIRECT_LIMIT, WAV, uploading

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOADS = "/audio/uploads"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    """One for all tests, whose uploads have names of their own."""
    async with uploading() as service:
        yield service


async def begun(service, headers=ACME, **more):
    body = {"filename": "call.wav", "size_bytes": len(WAV)} | more
    response = await service.client.post(UPLOADS, json=body, headers=headers)
    assert response.status == 201, await response.text()
    return await response.json()


async def sent(service, target, content=WAV):
    return await service.client.session.put(target["url"], data=io.BytesIO(content), headers=target["headers"])


async def completed(service, target, headers=ACME):
    return await service.client.post(target["links"]["complete"], headers=headers)


async def test_a_recording_that_is_sent_and_completed_becomes_a_job_that_fetches_it(service):
    target = await begun(service, reference="long 1", metadata={"n": 1}, priority=9)
    before = service.published()
    assert (await sent(service, target)).status == 204
    answer = await completed(service, target)
    view = await answer.json()
    job = await service.database.job("acme", target["job_id"])

    assert (answer.status, view["job_id"], view["status"]) == (202, target["job_id"], "uploaded")
    assert (job.reference, job.priority) == ("long 1", 9)
    assert await service.store.get(job.audio_uri) == WAV
    assert service.published() - before == {"audio.uploaded": 1, "intake.due": 1, "job.status": 1}
    again = await completed(service, target)
    assert (again.status, (await again.json())["repeated"]) == (200, True)
    await problem(await sent(service, target), 409)


async def test_a_recording_with_a_time_is_fetched_then(service):
    begins = datetime.now(UTC) + timedelta(days=1)
    target = await begun(service, not_before=begins.isoformat())
    await sent(service, target)
    view = await (await completed(service, target)).json()
    job = await service.database.job("acme", target["job_id"])

    assert (view["status"], job.not_before, job.queued_at) == ("uploaded", begins, begins)
    late = {"filename": "a.wav", "size_bytes": 5, "not_before": (begins + timedelta(days=90)).isoformat()}
    await problem(await service.client.post(UPLOADS, json=late, headers=ACME), 400)


async def test_an_upload_that_has_not_arrived_cannot_be_completed(service):
    target = await begun(service)
    refused = await problem(await completed(service, target), 409)

    assert f"of {len(WAV)} bytes, 0 have arrived" in refused["detail"]
    assert await service.database.job("acme", target["job_id"]) is None


async def test_more_bytes_than_were_said_are_refused(service):
    target = await begun(service, size_bytes=len(WAV) - 1)
    response = await service.client.session.put(target["url"], data=io.BytesIO(WAV))

    await problem(response, 413)
    await problem(await completed(service, target), 409)


async def test_a_url_without_its_token_is_answered_like_an_unknown_upload(service):
    target = await begun(service)
    url = target["url"].partition("?")[0]
    wrong = await problem(await service.client.session.put(f"{url}?token=x", data=io.BytesIO(WAV)), 404)
    other = url.replace(target["upload_id"], target["job_id"])

    assert wrong == await problem(await service.client.session.put(f"{other}?token=x", data=io.BytesIO(WAV)), 404)


async def test_another_tenants_upload_cannot_be_completed(service):
    target = await begun(service)
    await sent(service, target)
    foreign = await problem(await completed(service, target, BOLT), 404)
    unknown = target["links"]["complete"].replace(target["upload_id"], target["job_id"])

    assert foreign == await problem(await service.client.post(unknown, headers=BOLT), 404)


async def test_a_known_reference_and_too_long_a_recording_are_refused_at_once(service):
    await service.upload(reference="long 2")
    known = {"filename": "a.wav", "size_bytes": 5, "reference": "long 2"}
    long = {"filename": "a.wav", "size_bytes": DIRECT_LIMIT + 1}

    assert "/jobs/" in (await problem(await service.client.post(UPLOADS, json=known, headers=ACME), 409))["detail"]
    assert "2 MB" in (await problem(await service.client.post(UPLOADS, json=long, headers=ACME), 413))["detail"]


async def test_an_upload_that_is_not_completed_in_time_is_gone():
    async with uploading() as service:
        target = await begun(service)
        assert (await sent(service, target)).status == 204
        clock = service.database.clock
        service.database.clock = lambda: clock() + timedelta(hours=6.1)
        orphans = await service.database.orphan_blobs(120, 3600, 10)

        assert [service.store.name(uri) for uri in orphans] == [f"acme/_uploads/{target['upload_id']}"]
        await problem(await completed(service, target), 404)
        await problem(await sent(service, target), 404)


async def test_a_completed_recording_is_kept_until_its_job_has_its_own():
    async with uploading() as service:
        target = await begun(service)
        await sent(service, target)
        await completed(service, target)
        clock = service.database.clock
        service.database.clock = lambda: clock() + timedelta(days=30)
        assert await service.database.orphan_blobs(120, 6 * 3600, 10) == []

        await service.moved("transcribing", target["job_id"])
        assert len(await service.database.orphan_blobs(120, 6 * 3600, 10)) == 1
