"""Uploads over HTTP: what becomes of a recording, what is refused, and that nothing is left of what broke off."""

from __future__ import annotations

import asyncio
import io
import tempfile
from datetime import UTC, datetime, timedelta

import jsonschema
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.web.service import ACME, BOLT, ROOT, UUID, problem
from tests.web.uploading import LIMIT, WAV, uploading
from web.resources.uploads import receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    """One for all tests, whose jobs have names of their own: starting the prober takes a second."""
    async with uploading() as service:
        yield service


async def taken(response, status=202):
    assert response.status == status, await response.text()
    return await response.json()


async def test_a_recording_becomes_a_job_that_is_on_its_way(service):
    before = service.published()
    answer = await service.upload(
        reference="call 1", language="de", priority=7, options={"enrich": None}, metadata={"agent": "Zoë"}
    )
    view = await taken(answer)
    job = await service.database.job("acme", view["job_id"])
    events = service.published() - before

    assert answer.headers["Location"] == f"/jobs/{view['job_id']}" == view["links"]["self"]
    assert (job.status, job.reference, job.language, job.priority) == ("transcribing", "call 1", "de", 7)
    assert (job.filename, job.duration_ms, job.content_type) == ("call.wav", 500, "audio/wav")
    assert view["audio_file_path"] == f"acme/{job.job_id}/original.wav"
    assert await service.store.get(job.original_uri) == WAV
    assert events == {
        "audio.uploaded": 1,
        "asr.requests.a": 1,
        "asr.requests.b": 1,
        "reconcile.due": 1,
        "job.status": 1,
    }
    shown = await service.json(f"/jobs/{job.job_id}")
    assert shown["metadata"] == {"agent": "Zoë"}
    assert shown["links"]["cancel"] == f"/jobs/{job.job_id}/cancel"


async def test_the_event_says_what_the_upload_said(service):
    view = await taken(await service.upload(job_id=UUID, metadata={"n": 1}, last=True))
    [event] = [
        orjson.loads(m.value)
        for _, m in service.database.outbox
        if m.topic == "audio.uploaded" and m.job_id == view["job_id"]
    ]

    assert event["job_id"] == view["job_id"] == UUID
    assert event["metadata"] == {"n": 1}
    assert event["audio_uri"] == f"memory://acme/{UUID}/original.wav"


async def test_a_repeat_with_a_known_name_is_answered_with_its_job(service):
    first = await taken(await service.upload(reference="call 2"))
    before = service.published()
    repeated = await taken(await service.upload(reference="call 2", filename="other.wav"), 200)
    other = await taken(await service.upload(reference="call 2", headers=BOLT))

    assert (first["repeated"], repeated["repeated"]) == (False, True)
    assert repeated["job_id"] == first["job_id"] != other["job_id"]
    assert repeated["filename"] == "call.wav"
    assert (service.published() - before)["audio.uploaded"] == 1


async def test_a_job_that_was_given_its_id_is_found_by_its_reference(service):
    given, other = "4711ca11-0000-4000-8000-00000000000b", "4711ca11-0000-4000-8000-00000000000c"
    await taken(await service.upload(job_id=given, reference="call 4"))

    assert (await taken(await service.upload(reference="call 4"), 200))["job_id"] == given
    assert (await taken(await service.upload(job_id=given), 200))["reference"] == "call 4"
    await problem(await service.upload(job_id=other, reference="call 4"), 409)
    await problem(await service.upload(job_id=given, reference="call 5"), 409)


async def test_uploads_of_one_name_at_the_same_moment_are_one_job(service):
    answers = await asyncio.gather(*(service.upload(reference="call 3") for _ in range(4)))
    views = [await answer.json() for answer in answers]

    assert sorted(answer.status for answer in answers) == [200, 200, 200, 202]
    assert len({view["job_id"] for view in views}) == 1


async def test_a_recording_may_be_the_whole_body(service):
    answer = await service.client.post(
        "/audio/process?filename=desk.wav&priority=9", data=WAV, headers=ACME | {"Content-Type": "audio/wav"}
    )
    job = await service.database.job("acme", (await taken(answer))["job_id"])

    assert (job.filename, job.priority) == ("desk.wav", 9)


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"priority": "12"}, ["#/priority"]),
        ({"language": "german", "metadata": "{"}, ["#/metadata"]),
        ({"colour": "red"}, ["#/colour"]),
        ({"options": {"louder": True}}, ["#/options/louder"]),
        ({"file": None, "reference": "x"}, ["#/file"]),
        ({"reference": "x" * 256}, ["#/reference"]),
        ({"metadata": "x" * 900_001}, ["#/metadata"]),
        ({"metadata": {"x": "y" * 800_000}}, ["#/metadata"]),
    ],
)
async def test_every_wrong_field_is_named(service, fields, pointers):
    before = await service.blobs()
    refused = await problem(await service.upload(**fields), 400)

    assert [error["pointer"] for error in refused["errors"]] == pointers
    assert await service.blobs() == before


async def test_an_option_that_nobody_here_supports_is_refused(service):
    refused = await problem(await service.upload(options={"diarize": True}), 400)

    assert "cannot tell speakers apart" in refused["detail"]


@pytest.mark.parametrize("content", [b"%PDF-1.7 and so on", b"Dear Sir,", WAV[:44], b""])
async def test_what_is_no_recording_is_refused_with_what_it_is_and_what_works(service, content):
    before = service.published(), await service.blobs()
    refused = await problem(await service.upload(content, "call.wav"), 415)

    assert "call.wav" in refused["detail"]
    assert "flac" in refused["detail"]
    assert (service.published(), await service.blobs()) == before


async def test_another_body_is_refused_with_what_is_taken(service):
    response = await service.client.post("/audio/process", json={"file": "x"}, headers=ACME)

    assert "multipart/form-data" in (await problem(response, 415))["detail"]


async def chunks(size):
    for _ in range(size >> 16):
        yield bytes(1 << 16)


@pytest.mark.parametrize("known", [True, False], ids=["length", "chunked"])
async def test_a_recording_that_is_too_long_is_refused_with_the_way_for_long_ones(service, known):
    size = LIMIT + (1 << 18)
    data = io.BytesIO(bytes(size)) if known else chunks(size)
    response = await service.client.post("/audio/process", data=data, headers=ACME | {"Content-Type": "audio/wav"})
    refused = await problem(response, 413)

    assert "1 MB" in refused["detail"]
    assert "POST /audio/uploads" in refused["detail"]
    await problem(await service.upload(bytes(size)), 413)


async def test_an_operator_says_whose_recording_it_is(service):
    named = await taken(await service.upload(headers=ROOT, query="?tenant=bolt"))

    assert named["tenant_id"] == "bolt"
    assert named["links"]["status"].endswith("?tenant=bolt")
    assert "tenant" in (await problem(await service.upload(headers=ROOT), 400))["detail"]
    await problem(await service.upload(headers=ACME, query="?tenant=bolt"), 404)


async def test_an_upload_that_breaks_off_leaves_nothing(service, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others upload, too
    before = service.published(), await service.blobs()
    _, writer = await asyncio.open_connection("127.0.0.1", service.client.port)
    head = "POST /audio/process HTTP/1.1\r\nHost: localhost\r\nX-API-Key: acme-key\r\nContent-Type: audio/wav\r\n"
    writer.write(f"{head}Content-Length: 1000000\r\n\r\n".encode() + WAV)
    await writer.drain()
    while not (folders := set(tmp_path.glob("concord-upload-*"))):
        await asyncio.sleep(0.01)
    writer.close()
    while service.busy():
        await asyncio.sleep(0.01)

    assert not [folder for folder in folders if folder.exists()]
    assert (service.published(), await service.blobs()) == before


async def test_the_last_of_more_uploads_than_a_caller_may_send_is_told_to_wait():
    async with uploading(at_once=4) as service:
        wait = asyncio.Event()

        async def slow():
            yield WAV[:1000]
            await wait.wait()
            yield WAV[1000:]

        headers = {"Content-Type": "audio/wav"}
        first = asyncio.create_task(service.client.post("/audio/process", data=slow(), headers=ACME | headers))
        while not service.busy():
            await asyncio.sleep(0.01)
        refused = await service.upload()
        other = await service.upload(headers=BOLT)
        wait.set()

        assert "1 uploads" in (await problem(refused, 429))["detail"]
        assert refused.headers["Retry-After"]
        assert (other.status, (await first).status) == (202, 202)


async def test_the_document_describes_the_routes_with_valid_examples(service):
    document = await service.json("/openapi.json")
    process = document["paths"]["/audio/process"]["post"]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    bodies = [operation["requestBody"] for operation in operations if "requestBody" in operation]
    responses = [response for operation in operations for response in operation["responses"].values()]
    contents = [content for part in bodies + responses for content in part.get("content", {}).values()]

    assert set(process["requestBody"]["content"]) == {
        "multipart/form-data",
        "audio/*",
        "video/*",
        "application/octet-stream",
    }
    assert {"200", "202", "400", "401", "403", "408", "409", "413", "415", "422", "429"} <= set(process["responses"])
    assert "Idempotency-Key" in [parameter["name"] for parameter in process["parameters"]]
    for content in contents:
        if "example" in content:
            whole = content["schema"] | {"components": document["components"]}
            jsonschema.Draft202012Validator(whole).validate(content["example"])


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"STALL_S": 0.1}, "nothing has arrived"), ({"GRACE_S": 0.1, "LEAST_RATE": 1 << 20}, "bytes a second")],
    ids=["stalled", "slow"],
)
async def test_a_recording_that_does_not_arrive_in_time_is_given_up(service, monkeypatch, limits, reason):
    for name, value in limits.items():
        monkeypatch.setattr(receiving, name, value)

    async def drip():
        while service.busy() or not dripped:
            dripped.append(1)
            yield WAV[:100]
            await asyncio.sleep(0.05 if "GRACE_S" in limits else 0.3)

    dripped = []
    response = await service.client.post("/audio/process", data=drip(), headers=ACME | {"Content-Type": "audio/wav"})
    assert reason in (await problem(response, 408))["detail"]


async def test_a_recording_waits_until_the_time_that_its_form_says(service):
    begins = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    view = await (await service.upload(reference="tomorrow", not_before=begins)).json()
    status = await (await service.client.get("/jobs/tomorrow", headers=ACME)).json()
    late = (datetime.now(UTC) + timedelta(days=91)).isoformat()

    assert (view["status"], status["status"]) == ("uploaded", "uploaded")
    assert datetime.fromisoformat(status["not_before"]) == datetime.fromisoformat(begins)
    assert "90 days" in (await problem(await service.upload(not_before=late), 400))["detail"]
    assert (await problem(await service.upload(not_before="soon"), 400))["errors"][0]["pointer"] == "#/not_before"


async def test_a_body_is_read_in_portions_however_much_of_it_has_arrived():
    sizes = []

    async def handle(request):
        await asyncio.sleep(0.2)  # meanwhile it arrives
        sizes.extend([len(piece) async for piece in receiving.pieces(request, 1 << 22)])
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handle)
    async with TestClient(TestServer(app)) as client:
        assert (await client.post("/", data=bytes(1 << 20))).status == 200

    assert (sum(sizes), max(sizes) <= receiving.PORTION) == (1 << 20, True)
