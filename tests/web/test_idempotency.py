"""`Idempotency-Key`: what is repeated is done once, and answered as the first time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
import pytest_asyncio

from sinks.ports.api.idempotency import Answer
from tests.web.service import ACME, BOLT, problem
from tests.web.uploading import WAV, uploading

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    """One for all tests; each has a key of its own."""
    async with uploading() as service:
        yield service


def keyed(headers=ACME, key=None):
    return headers | {"Idempotency-Key": key or str(uuid4())}


async def test_a_repeated_upload_is_answered_as_the_first_time(service):
    headers = keyed()
    first = await service.upload(headers=headers, language="de")
    before = service.published()
    second = await service.upload(headers=headers, language="de", last=True)

    assert (first.status, second.status) == (202, 202)
    assert await first.read() == await second.read()
    assert second.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert service.published() == before


async def test_without_a_key_two_uploads_are_two_jobs(service):
    views = [await (await service.upload()).json() for _ in range(2)]

    assert views[0]["job_id"] != views[1]["job_id"]


async def test_a_key_of_another_tenant_is_another_key(service):
    key = str(uuid4())
    views = [await (await service.upload(headers=keyed(who, key))).json() for who in (ACME, BOLT)]

    assert [view["tenant_id"] for view in views] == ["acme", "bolt"]
    assert views[0]["job_id"] != views[1]["job_id"]


@pytest.mark.parametrize("second", [{"language": "fr"}, {"name": "other.wav"}, {"file": WAV + b"\0\0"}])
async def test_a_key_that_was_used_for_another_request_is_refused(service, second):
    headers = keyed()
    assert (await service.upload(headers=headers)).status == 202
    other = {"name": "call.wav", "file": WAV} | second

    await problem(await service.upload(other.pop("file"), other.pop("name"), headers=headers, **other), 422)


async def test_a_request_that_is_being_executed_is_not_executed_again(service):
    headers = keyed()
    answers = await asyncio.gather(*(service.upload(headers=headers) for _ in range(3)))
    statuses = sorted(answer.status for answer in answers)

    assert statuses.count(409) == 2
    assert statuses[0] == 202
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status == 409)


async def test_an_error_is_not_kept(service):
    headers = keyed()
    await problem(await service.upload(b"no recording", headers=headers), 415)
    assert (await service.upload(headers=headers)).status == 202


async def test_what_was_interrupted_after_it_was_done_is_not_done_twice(service):
    """Its worker was killed between the commit and the answer: the claim lapses, and the same job is found."""
    headers = keyed()
    first = await (await service.upload(headers=headers)).json()
    known, _ = service.database._idempotency["acme", headers["Idempotency-Key"]]
    forgotten = type(known)(known.fingerprint, uuid4(), known.created_at, None)
    service.database._idempotency["acme", headers["Idempotency-Key"]] = (
        forgotten,
        service.database.clock() - timedelta(seconds=1),
    )
    second = await service.upload(headers=headers)

    assert (second.status, (await second.json())["job_id"]) == (200, first["job_id"])


async def test_a_json_body_may_be_written_differently(service):
    headers = keyed() | {"Content-Type": "application/json"}
    bodies = (b'{"filename":"a.wav","size_bytes":7}', b'{ "size_bytes": 7, "filename": "a.wav" }')
    answers = [await service.client.post("/audio/uploads", data=body, headers=headers) for body in bodies]

    assert [answer.status for answer in answers] == [201, 201]
    assert await answers[0].read() == await answers[1].read()


@pytest.mark.parametrize("key", ["x" * 256, "é"])
async def test_a_key_that_is_none_is_refused(service, key):
    refused = await problem(await service.upload(headers=keyed(key=key)), 400)

    assert refused["errors"][0]["parameter"] == "Idempotency-Key"


async def test_a_key_may_be_quoted(service):
    key = str(uuid4())
    first, second = [await service.upload(headers=keyed(key=text)) for text in (key, f'"{key}"')]

    assert await first.read() == await second.read()


async def test_a_kept_answer_is_one_of_success(service):
    keys = [known.answer for known, _ in service.database._idempotency.values() if known.answer is not None]

    assert keys
    assert all(isinstance(answer, Answer) and answer.status < 300 for answer in keys)
