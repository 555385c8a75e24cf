"""The bucket from which Google reads: the same tests on fake-gcs-server and on a local server that can fail."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from agents.asr.google import storage as google_storage
from agents.asr.google.storage import Bucket
from schemas.errors import ProviderError, RateLimited, Transient
from tests.contract.test_google_speech import key
from tests.servers.built import go_built
from tests.servers.gcs import BUCKET, MODULE, VERSION, Server, Storage, Switches, fetched

pytestmark = pytest.mark.timeout(600)  # the first test waits until fake-gcs-server is built


@pytest.fixture
async def server(tmp_path):
    """Ours; and its endpoint."""
    it = Server(tmp_path)
    async with TestServer(it.app()) as running:
        it.endpoint = str(running.make_url("")).rstrip("/")
        yield it
        it.switches = Switches()
        it.changed()


@pytest.fixture(params=["ours", "fake-gcs-server"])
async def endpoint(request, server, tmp_path):
    if request.param == "ours":
        yield server.endpoint
        return
    try:
        go_built(MODULE, VERSION)
    except FileNotFoundError as exc:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(exc))
    storage = Storage(tmp_path / "storage")
    await storage.start()
    yield storage.endpoint
    storage.kill()


@pytest.fixture
async def bucket(endpoint):
    it = opened(endpoint)
    yield it
    await it.close()


def opened(endpoint, name=BUCKET, **options):
    return Bucket("google", name, endpoint=endpoint, timeout_s=1.0, **options)


@pytest.fixture
async def failing(server):
    """A bucket on ours."""
    it = opened(server.endpoint)
    yield it
    await it.close()


def file(folder, content=b"some sound"):
    (folder / "a.flac").write_bytes(content)
    return folder / "a.flac"


async def test_what_is_put_is_there_until_it_is_deleted(bucket, endpoint, tmp_path):
    uri = await bucket.put("concord-j%2F1-1-google/0a.flac", file(tmp_path), "audio/flac")

    assert uri == f"gs://{BUCKET}/concord/concord-j%2F1-1-google/0a.flac"
    assert await fetched(endpoint, uri) == b"some sound"
    await bucket.delete(uri)
    assert await fetched(endpoint, uri) is None
    await bucket.delete(uri)


async def test_a_name_is_used_once(bucket, endpoint, tmp_path):
    uri = await bucket.put("a.flac", file(tmp_path), "audio/flac")

    with pytest.raises(ProviderError, match="412"):
        await bucket.put("a.flac", file(tmp_path, b"another"), "audio/flac")
    assert await fetched(endpoint, uri) == b"some sound"


async def test_a_large_file_goes_up_in_portions(bucket, endpoint, tmp_path):
    content = os.urandom(3 << 20) * 10

    uri = await bucket.put("a.flac", file(tmp_path, content), "audio/flac")

    assert await fetched(endpoint, uri) == content


async def test_what_is_not_ours_is_not_deleted(server, failing):
    server.objects["a.flac"] = b"somebody's"

    for uri in (f"gs://{BUCKET}/a.flac", "gs://another/concord/a.flac", "https://example.com/concord/a.flac", ""):
        await failing.delete(uri)

    assert server.objects == {"a.flac": b"somebody's"}
    assert server.calls == []


async def test_a_check_leaves_nothing_behind(bucket, server):
    await bucket.check()

    assert server.objects == {}


async def test_a_bucket_that_is_not_there_is_named_with_its_variable(endpoint, tmp_path):
    bucket = opened(endpoint, "no-such-bucket")

    with pytest.raises(ProviderError, match="GOOGLE_CLOUD_BUCKET"):
        await bucket.check()
    with pytest.raises(ProviderError, match="GOOGLE_CLOUD_BUCKET"):
        await bucket.put("a.flac", file(tmp_path), "audio/flac")
    await bucket.close()


async def test_an_unreachable_server_is_transient(tmp_path):
    bucket = opened(f"http://127.0.0.1:{unused_port()}")

    with pytest.raises(Transient):
        await bucket.check()
    with pytest.raises(Transient):
        await bucket.put("a.flac", file(tmp_path), "audio/flac")
    await bucket.close()


async def test_a_closed_one_says_so(server, tmp_path):
    bucket = opened(server.endpoint)
    await bucket.close()
    await bucket.close()

    with pytest.raises(Transient, match="shut down"):
        await bucket.put("a.flac", file(tmp_path), "audio/flac")


# -- failures --


async def test_a_pause_that_is_asked_for_is_passed_on(server, failing, tmp_path):
    server.switches = Switches(refuse_429=True, retry_after_s=7)

    with pytest.raises(RateLimited) as caught:
        await failing.put("a.flac", file(tmp_path), "audio/flac")
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("how", ["error_5xx", "stall", "lose_answer", "stop_reading"])
async def test_what_may_work_later_is_transient(server, tmp_path, how):
    server.switches = Switches(**{how: True})
    bucket = opened(server.endpoint, stall_s=1.0)

    async with asyncio.timeout(5):
        with pytest.raises(Transient):
            await bucket.put("a.flac", file(tmp_path, bytes(32 << 20)), "audio/flac")
    await bucket.close()


async def test_an_upload_may_take_longer_than_a_call(server, tmp_path, monkeypatch):
    read = server.put

    async def slow(request):
        await asyncio.sleep(1.5)
        return await read(request)

    monkeypatch.setattr(google_storage, "PORTION", 1 << 16)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/upload/storage/v1/b/{bucket}/o", slow)
    async with TestServer(app) as running:
        bucket = opened(str(running.make_url("")))
        await bucket.put("a.flac", file(tmp_path, bytes(8 << 20)), "audio/flac")
        await bucket.close()
    assert len(server.objects["concord/a.flac"]) == 8 << 20


@pytest.mark.parametrize("call", ["put", "get", "delete"])
async def test_a_role_that_is_missing_is_named(server, failing, call):
    server.switches = Switches(forbidden=True, on=[call])

    with pytest.raises(ProviderError, match="Storage Object User"):
        await failing.check()


async def test_what_comes_back_as_something_else_is_not_trusted(server, failing):
    server.switches = Switches(tamper=True)

    with pytest.raises(ProviderError, match="something else"):
        await failing.check()


# -- tokens --


@pytest.fixture
async def account(tmp_path):
    """`account(status, answer)`: a key file whose tokens come from a server that answers this."""
    running = []

    async def build(answer, status=200):
        app = web.Application()
        asked = []

        async def token(request):
            asked.append(await request.text())
            return web.json_response(answer, status=status)

        app.router.add_post("/token", token)
        server = TestServer(app)
        await server.start_server()
        running.append(server)
        return key(tmp_path, str(server.make_url("/token"))), asked

    yield build
    for server in running:
        await server.close()


async def test_a_token_is_asked_for_once_and_sent_as_bearer(account):
    file, asked = await account({"access_token": "t0ken", "expires_in": 3600, "token_type": "Bearer"})
    bucket = Bucket("google", BUCKET, credentials=file)

    found = await asyncio.gather(bucket._authorization(), bucket._authorization())

    assert found == [{"Authorization": "Bearer t0ken"}] * 2
    assert len(asked) == 1
    await bucket.close()


async def test_without_encryption_no_token_is_sent(account, server, tmp_path):
    key_file, asked = await account({"access_token": "t0ken", "expires_in": 3600})
    bucket = opened(server.endpoint, credentials=key_file)

    await bucket.put("a.flac", file(tmp_path), "audio/flac")

    assert asked == []
    assert "Authorization" not in server.calls[0][1]
    assert server.calls[0][1]["Content-Length"] == "10"
    await bucket.close()


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [({"error": "invalid_grant"}, 400, ProviderError), ({"error": "internal_failure"}, 500, Transient)],
)
async def test_a_token_that_is_refused_is_final_and_one_that_fails_is_not(account, caplog, answer, status, kind):
    file, _ = await account(answer, status)
    bucket = Bucket("google", BUCKET, credentials=file, timeout_s=20)

    with caplog.at_level(logging.DEBUG), pytest.raises(kind) as caught:
        await bucket.check()
    secret = file.read_text().partition("BEGIN PRIVATE KEY-----\\n")[2][:40]
    assert secret not in str(caught.value) + caplog.text
    await bucket.close()


async def test_a_key_file_that_cannot_be_used_is_a_final_no(tmp_path):
    bucket = Bucket("google", BUCKET, credentials=file(tmp_path, b"{}"))

    with pytest.raises(ProviderError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        await bucket.check()
    await bucket.close()
