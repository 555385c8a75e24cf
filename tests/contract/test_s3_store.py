"""Failures that only S3 has: keys, permissions, regions, timeouts, incomplete uploads, and a server that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import json
from datetime import timedelta
from uuid import uuid4

import aiohttp
import aiohttp.web
import pytest

from schemas.calls.time_limit import time_limit
from schemas.errors import Misconfigured, NotFound, SettingsError, Unavailable
from sinks.blobs.s3 import S3Store
from sinks.blobs.s3_errors import Denied
from sinks.blobs.s3_uploads import PART, PARTS_AT_ONCE
from tests.servers.s3 import BUCKET, GUEST, OWNER, REGION, moto_in, server_in

pytestmark = pytest.mark.timeout(900)  # the first test waits until versitygw is built

MB = 1 << 20


@contextlib.asynccontextmanager
async def store_at(endpoint, bucket=BUCKET, **settings):
    settings = {"region": REGION, "prefix": uuid4().hex, **OWNER, **settings}
    store = S3Store(bucket, endpoint_url=endpoint, **settings)
    try:
        yield store
    finally:
        await store.close()


async def pieces(*content):
    for piece in content:
        yield piece


@contextlib.contextmanager
def looking_at(server):
    client = server.client()
    try:
        yield client
    finally:
        client.close()


@contextlib.asynccontextmanager
async def scripted(answer):
    """The endpoint of a server that answers one request a connection with `answer`, and the requests it had."""
    asked, open_ = [], set()

    async def serve(reader, writer):
        open_.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked.append(head.partition(" HTTP/")[0])
            await answer(writer, asked[-1])
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_)


def refusing(status, code, extra="", headers=""):
    body = f"<Error><Code>{code}</Code><Message>scripted</Message>{extra}</Error>".encode()

    async def answer(writer, _request):
        head = f"HTTP/1.1 {status} x\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)

    return answer


# What `check` says is wrong.


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"access_key": "nobody", "secret_key": "x"}, "AWS_ACCESS_KEY_ID"),
        ({**OWNER, "secret_key": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
    ],
)
async def test_a_wrong_key_and_a_wrong_secret_are_distinguished(s3_server, keys, message):
    s3_server.genuine("signatures")
    async with store_at(s3_server.endpoint, **keys) as store:
        with pytest.raises(SettingsError, match=message):
            await store.check()


async def test_a_missing_bucket_is_named(s3_server):
    async with store_at(s3_server.endpoint, "no-such-bucket") as store:
        with pytest.raises(SettingsError, match=r"no-such-bucket .*S3_BUCKET_NAME"):
            await store.check()


async def test_a_name_that_no_bucket_can_have_is_the_operators_to_mend(s3_server):
    async with store_at(s3_server.endpoint, "no bucket!") as store:
        with pytest.raises(SettingsError, match="S3_BUCKET_NAME"):
            await store.check()


ALL = {"s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:DeleteObject"}


@pytest.mark.parametrize("missing", sorted(ALL))
async def test_a_missing_permission_is_named(s3_server, missing):
    s3_server.genuine("bucket policies")
    bucket = f"guest-{uuid4().hex}"
    allowed = {
        "Effect": "Allow",
        "Principal": {"AWS": [GUEST["access_key"]]},
        "Action": sorted(ALL - {missing}),
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    if missing == "s3:ListBucket":
        allowed["Resource"] = [f"arn:aws:s3:::{bucket}/*"]
    with looking_at(s3_server) as owner:
        owner.create_bucket(Bucket=bucket)
        owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))

    async with store_at(s3_server.endpoint, bucket, **GUEST) as store:
        with pytest.raises(SettingsError, match=missing):
            await store.check()


async def test_all_that_is_denied_is_named_at_once(s3_server):
    s3_server.genuine("bucket policies")
    async with store_at(s3_server.endpoint, **GUEST, prefix="calls") as store:
        with pytest.raises(SettingsError) as caught:
            await store.check()

    assert f"needs {', '.join(permissions())} on {BUCKET}/calls/*" in str(caught.value)


def permissions():
    return ["s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:DeleteObject"]


async def test_a_wrong_clock_is_distinguished_from_a_wrong_secret(s3_server, monkeypatch):
    s3_server.genuine("signatures")
    import botocore.auth

    right = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: right() + timedelta(hours=1))
    async with store_at(s3_server.endpoint) as store:
        with pytest.raises(SettingsError, match="clock"):
            await store.check()


async def test_an_endpoint_without_a_server_is_unavailable_and_named():
    async with store_at("http://127.0.0.1:1", attempts=1) as store:
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 cannot be reached: .*\('127\.0\.0\.1', 1\)$"):
            await store.check()


async def test_a_server_without_tls_is_not_taken_for_one_that_is_away(s3_server):
    async with store_at(s3_server.endpoint.replace("http:", "https:"), attempts=1) as store:
        with pytest.raises(Unavailable, match=r"by TLS: .* http://"):
            await store.check()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((301, "PermanentRedirect", "", "x-amz-bucket-region: eu-central-1\r\n"), id="redirect"),
        pytest.param((400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"), id="scope"),
    ],
)
async def test_the_region_where_the_bucket_is_is_named(answer):
    async with scripted(refusing(*answer)) as (endpoint, _), store_at(endpoint) as store:
        with pytest.raises(SettingsError, match=r"another region \(eu-central-1\): check S3_REGION"):
            await store.check()


async def test_no_keys_at_all_is_the_operators_to_mend(s3_server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    async with store_at(s3_server.endpoint, access_key=None, secret_key=None) as store:
        with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
            await store.check()
        with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
            await store.presigned_url(store.uri("acme/file"), 60)


async def test_keys_come_from_the_usual_aws_environment(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OWNER["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OWNER["secret_key"])

    async with store_at(s3_server.endpoint, access_key=None, secret_key=None) as store:
        await store.check()


async def test_half_a_pair_of_keys_is_the_operators_to_mend(s3_server):
    async with store_at(s3_server.endpoint, secret_key=None) as store:
        with pytest.raises(SettingsError, match="AWS_SECRET_ACCESS_KEY"):
            await store.check()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (503, "SlowDown", Unavailable),
        (500, "InternalError", Unavailable),
        (502, "", Unavailable),
        (429, "TooManyRequests", Unavailable),
        (400, "RequestTimeout", Unavailable),
        (409, "OperationAborted", Unavailable),
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", Misconfigured),
        (403, "AccessDenied", Denied),
        (403, "RequestTimeTooSkewed", Misconfigured),
        (400, "ExpiredToken", Misconfigured),
        (400, "AuthorizationHeaderMalformed", Misconfigured),
        (400, "SomethingNew", Misconfigured),
    ],
)
async def test_what_s3_answers_decides_who_has_to_act(status, code, expected):
    async with scripted(refusing(status, code)) as (endpoint, _), store_at(endpoint, attempts=1) as store:
        with pytest.raises(expected) as raised:
            await store.get(store.uri("acme/file"))
        assert type(raised.value) is expected
        assert isinstance(raised.value, NotFound | Unavailable)  # whoever has to act, no job is given up
        assert BUCKET in str(raised.value)


async def test_a_busy_server_is_asked_again_before_giving_up():
    async with scripted(refusing(503, "SlowDown")) as (endpoint, asked), store_at(endpoint) as store:
        with pytest.raises(Unavailable, match="SlowDown"):
            await store.put("acme/file", b"x", "text/plain")

    assert [request.split(" ")[0] for request in asked] == ["PUT"] * 3


async def test_a_server_that_never_answers_is_given_up_on_in_time():
    async def silence(_writer, _request):
        await asyncio.sleep(30)

    async with scripted(silence) as (endpoint, _), store_at(endpoint, timeout=0.5) as store:
        await store._client.connected()  # connecting means half a second of imports, not of network
        for work in (
            store.get(store.uri("a")),
            store.put("a", b"x", "a/b"),
            store.delete(store.uri("a")),
            store.stat(store.uri("a")),
        ):
            async with asyncio.timeout(2):
                with pytest.raises(Unavailable, match="in time"):
                    await work


async def test_a_body_that_stops_half_way_is_unavailable_and_not_a_short_blob():
    async def half(writer, _request):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Type: a/b\r\n\r\n" + b"x" * 400)

    async def stalled(writer, request):
        await half(writer, request)
        await writer.drain()
        await asyncio.sleep(30)

    for answer in (half, stalled):
        async with scripted(answer) as (endpoint, _), store_at(endpoint, timeout=0.5) as store:
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable):
                    await store.get(store.uri("acme/file"))


async def test_something_else_than_s3_is_not_mistaken_for_it():
    async def web_page(writer, _request):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/html\r\n\r\n<html></html>")

    async with scripted(web_page) as (endpoint, _), store_at(endpoint, attempts=1) as store:
        with pytest.raises((SettingsError, Unavailable, NotFound)):
            await store.check()


# Content.


async def test_a_long_blob_goes_up_in_parts_and_comes_back_whole(s3_server):
    content = [bytes([number]) * MB for number in range(37)]
    async with store_at(s3_server.endpoint) as store:
        blob = await store.put("acme/long", pieces(*content), "audio/wav")

        assert blob.sha256 == hashlib.sha256(b"".join(content)).hexdigest()
        assert await store.stat(blob.uri) == blob
        assert await store.get(blob.uri) == b"".join(content)
        assert (await store.put("acme/long", b"".join(content), "audio/wav")).sha256 == blob.sha256
        with looking_at(s3_server) as owner:
            head = owner.head_object(Bucket=BUCKET, Key=blob.uri.removeprefix(f"s3://{BUCKET}/"))
        assert head["ETag"].strip('"').endswith(f"-{-(-37 * MB // PART)}")  # so many parts


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART])
async def test_nothing_is_lost_where_one_request_becomes_several(s3_server, size):
    async with store_at(s3_server.endpoint) as store:
        blob = await store.put("acme/edge", pieces(b"a" * (size - 1), b"z"), "audio/wav")

        assert await store.stat(blob.uri) == blob
        assert blob.size_bytes == size
        assert [piece async for piece in store.stream(blob.uri, size - 2)] == [b"az"]


@pytest.mark.parametrize("size", [1000, PART + MB])
async def test_damage_on_the_servers_disk_is_noticed(s3_server, size):
    s3_server.genuine("disk")
    async with store_at(s3_server.endpoint) as store:
        blob = await store.put("acme/file", b"a" * size, "audio/wav")
        file = s3_server.folder / "data" / blob.uri.removeprefix("s3://")
        with file.open("r+b") as stored:
            stored.seek(size // 2)
            stored.write(b"b")

        with pytest.raises(Unavailable):
            await store.get(blob.uri)
        with pytest.raises(Unavailable):
            async with store.local_path(blob.uri):
                pytest.fail("a damaged file was handed over")


async def test_few_parts_are_in_memory_however_many_uploads_there_are():
    under_way, most = 0, 0

    async def slow(writer, request):
        nonlocal under_way, most
        if request.startswith("PUT"):
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.05)
            under_way -= 1
        body = b"<x><UploadId>the-id</UploadId></x>" if request.startswith("POST") else b""
        head = f"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)

    async with scripted(slow) as (endpoint, _), store_at(endpoint) as store:
        content = b"x" * (PART + 1)
        await asyncio.gather(*(store.put(f"acme/{n}", content, "audio/wav") for n in range(8)))

    assert most == PARTS_AT_ONCE


async def test_a_cancelled_upload_leaves_no_parts_behind(s3_server):
    with looking_at(s3_server) as owner:
        async with store_at(s3_server.endpoint) as store:
            await store.check()
            seen_uploading = 0
            for after in (0.0, 0.02, 0.04, 0.08, 0.2):
                upload = asyncio.create_task(store.put("acme/long", b"x" * 5 * PART, "audio/wav"))
                await asyncio.sleep(0.05 + after)
                seen_uploading += len(uploads(owner, store))
                upload.cancel()
                await asyncio.wait({upload})
                assert uploads(owner, store) == []
        assert seen_uploading, "no cancellation hit the middle of an upload: the test checked nothing"


async def test_an_upload_cancelled_before_it_has_an_id_is_aborted_when_it_has_one():
    begun = asyncio.Event()

    async def slow(writer, request):
        body = b"<x><UploadId>the-id</UploadId></x>" if request.startswith("POST") else b""
        begun.set()
        await asyncio.sleep(0.2)
        status = "200 OK" if body else "204 No Content"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)

    async with scripted(slow) as (endpoint, asked), store_at(endpoint) as store:
        upload = asyncio.create_task(store.put("acme/long", b"x" * (PART + 1), "audio/wav"))
        await begun.wait()
        upload.cancel()
        await asyncio.wait({upload})

        assert upload.cancelled()
        assert [request.split(" ")[0] for request in asked] == ["POST", "DELETE"]
        assert "uploadId=the-id" in asked[-1]


async def test_what_a_part_leaves_that_was_being_received_is_removed_as_well():
    sending = asyncio.Event()

    async def slow(writer, request):
        if request.startswith("PUT"):
            sending.set()
            await asyncio.sleep(60)
        body = b"<x><UploadId>the-id</UploadId></x>" if request.startswith("POST") else b""
        status = "200 OK" if body else "204 No Content"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)

    async with scripted(slow) as (endpoint, asked), store_at(endpoint) as store:
        upload = asyncio.create_task(store.put("acme/long", b"x" * (PART + 1), "audio/wav"))
        await sending.wait()
        upload.cancel()
        await asyncio.wait({upload})

        assert upload.cancelled()
        assert [request.split(" ")[0] for request in asked] == ["POST", "PUT", "DELETE", "DELETE"]


async def test_a_delete_removes_the_parts_of_killed_writers_and_of_no_other_blob(s3_server):
    async with store_at(s3_server.endpoint) as store, aiohttp.ClientSession() as stranger:
        for name in ("acme/long", "acme/long.wav"):
            _, [url] = await store.begin_parts(store.uri(name), [3], 60)
            async with stranger.put(url, data=b"ID3") as answer:
                assert answer.status == 200
        await store.put("acme/long", b"x", "audio/wav")
        await store.delete(store.uri("acme/long"))
        with looking_at(s3_server) as owner:
            left = [one["Key"].rpartition("/")[2] for one in uploads(owner, store)]

        assert left == ["long.wav"]
        await store.delete(store.uri("acme/long.wav"))  # of which there is nothing but parts


@pytest.mark.parametrize(
    ("status", "code"), [("403 Forbidden", "AccessDenied"), ("501 Not Implemented", "NotImplemented")]
)
async def test_a_delete_needs_no_right_to_list_uploads_in_parts(status, code):
    async def refusing(writer, request):
        is_list = request.startswith("GET")
        body = f"<Error><Code>{code}</Code></Error>".encode() if is_list else b""
        answer = status if is_list else "204 No Content"
        writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)

    async with scripted(refusing) as (endpoint, asked), store_at(endpoint, attempts=1) as store:
        await store.delete(store.uri("acme/long"))

        assert [request.split(" ")[0] for request in asked] == ["DELETE", "GET"]


def uploads(owner, store):
    prefix = store.uri("a").removeprefix(f"s3://{BUCKET}/")[:-1]
    return [
        upload
        for upload in owner.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        if upload["Key"].startswith(prefix)
    ]


async def test_a_signed_url_reads_one_blob_and_nothing_else(s3_server):
    s3_server.genuine("signatures")
    async with store_at(s3_server.endpoint) as store, aiohttp.ClientSession() as stranger:
        blob = await store.put("acme/Gespräch №7 + 100%.mp3", b"ID3", "audio/mpeg")
        url = await store.presigned_url(blob.uri, 60)

        async with stranger.get(url) as answer:
            assert (answer.status, await answer.read(), answer.content_type) == (200, b"ID3", "audio/mpeg")
        async with stranger.get(url, headers={"Range": "bytes=1-1"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"D")
        async with stranger.get(url.replace("acme/", "acme2/")) as answer:
            assert answer.status == 403
        async with stranger.put(url, data=b"mine") as answer:
            assert answer.status == 403


async def test_signed_urls_have_the_address_by_which_others_reach_the_server(s3_server):
    public = s3_server.endpoint.replace("127.0.0.1", "localhost")
    async with store_at("http://127.0.0.1:1", public_endpoint_url=public) as store, aiohttp.ClientSession() as stranger:
        uri = store.uri("acme/uploads/1")
        url, headers = await store.presigned_put(uri, 3, 60)
        assert url.startswith(f"{public}/")
        async with stranger.put(url, data=b"ID3", headers=headers) as answer:
            assert answer.status == 200
        async with stranger.get(await store.presigned_url(uri, 60)) as answer:
            assert await answer.read() == b"ID3"


async def test_a_signed_url_for_a_recording_takes_exactly_its_bytes(s3_server):
    s3_server.genuine("signatures")
    async with store_at(s3_server.endpoint) as store, aiohttp.ClientSession() as stranger:
        uri = store.uri("acme/uploads/1")
        url, headers = await store.presigned_put(uri, 3, 60)
        assert await store.size(uri) is None

        async with stranger.put(url, data=b"ID3X", headers=headers) as answer:
            assert answer.status == 403
        async with stranger.put(url.replace("uploads/1", "uploads/2"), data=b"ID3", headers=headers) as answer:
            assert answer.status == 403
        async with stranger.put(url, data=b"ID3", headers=headers) as answer:
            assert answer.status == 200
        assert (await store.size(uri), await store.get(uri)) == (3, b"ID3")


async def test_a_recording_in_parts_is_made_of_them_when_all_have_arrived(s3_server):
    s3_server.genuine("signatures")
    sizes = [5 << 20, 3]
    async with store_at(s3_server.endpoint) as store, aiohttp.ClientSession() as stranger:
        uri = store.uri("acme/_uploads/1")
        id, urls = await store.begin_parts(uri, sizes, 60)
        async with stranger.put(urls[1], data=b"ID3") as answer:
            assert answer.status == 200
        assert await store.join_parts(uri, id, sum(sizes)) == 3
        with contextlib.suppress(aiohttp.ClientOSError):  # the server may close without having read the body
            async with stranger.put(urls[0], data=io.BytesIO(b"x" * (sizes[0] + 1))) as answer:
                assert answer.status == 403
        assert await store.join_parts(uri, id, sum(sizes)) == 3
        async with stranger.put(urls[0], data=io.BytesIO(b"x" * sizes[0])) as answer:
            assert answer.status == 200
        assert await store.size(uri) is None
        assert await store.join_parts(uri, id, sum(sizes)) == sum(sizes)

        assert (await store.size(uri), await store.get(uri)) == (sum(sizes), b"x" * sizes[0] + b"ID3")
        with pytest.raises(Unavailable):
            await store.join_parts(uri, id, sum(sizes))
        await store.remove_parts(uri, id)
        assert await store.size(uri) == sum(sizes)


async def test_parts_that_became_nothing_are_removed(s3_server):
    async with store_at(s3_server.endpoint) as store, aiohttp.ClientSession() as stranger:
        uri = store.uri("acme/_uploads/1")
        id, [url] = await store.begin_parts(uri, [3], 60)
        async with stranger.put(url, data=b"ID3") as answer:
            assert answer.status == 200
        await store.remove_parts(uri, id)
        await store.remove_parts(uri, id)
        with looking_at(s3_server) as owner:
            left = owner.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])

        assert [one["Key"] for one in left if uri.endswith(one["Key"])] == []
        async with stranger.put(url, data=b"ID3") as answer:
            assert answer.status == 404


async def test_a_signed_url_ends(s3_server):
    s3_server.genuine("signatures")
    async with store_at(s3_server.endpoint) as store, aiohttp.ClientSession() as stranger:
        blob = await store.put("acme/file", b"x", "text/plain")
        url = await store.presigned_url(blob.uri, 1)
        await asyncio.sleep(2.1)

        async with stranger.get(url) as answer:
            assert answer.status == 403


async def test_another_programs_object_is_described_by_reading_it(s3_server):
    async with store_at(s3_server.endpoint) as store:
        uri = store.uri("acme/theirs.txt")
        with looking_at(s3_server) as owner:
            owner.put_object(
                Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"), Body=b"theirs", ContentType="text/plain"
            )
            owner.put_object(
                Bucket=BUCKET, Key=store.uri("acme").removeprefix(f"s3://{BUCKET}/") + "/folder/", Body=b""
            )

        assert (await store.stat(uri)).sha256 == hashlib.sha256(b"theirs").hexdigest()
        assert [found async for found in store.list("")] == [uri]  # a console's folder marker is no blob


async def test_a_file_of_a_blob_is_removed_afterwards(s3_server, tmp_path):
    async with store_at(s3_server.endpoint, spool=tmp_path) as store:
        blob = await store.put("acme/original.mp3", b"ID3", "audio/mpeg")

        async def decode():
            async with store.local_path(blob.uri) as path:
                assert path.is_relative_to(tmp_path)
                raise RuntimeError("the decoder failed")

        with pytest.raises(RuntimeError, match="decoder"):
            await decode()
        with pytest.raises(NotFound):
            async with store.local_path(store.uri("acme/nothing")):
                pass
    assert list(tmp_path.iterdir()) == []


async def test_no_folder_for_temporary_files_is_said_plainly(s3_server, tmp_path):
    async with store_at(s3_server.endpoint, spool=tmp_path / "gone") as store:
        blob = await store.put("acme/small", b"x", "text/plain")

        with pytest.raises(Unavailable, match="temporary file"):
            await store.put("acme/long", pieces(*[b"x" * MB] * 20), "audio/wav")
        with pytest.raises(Unavailable, match="temporary file"):
            async with store.local_path(blob.uri):
                pass


@pytest.mark.parametrize(
    ("sse", "algorithm", "key"),
    [
        ("AES256", "AES256", None),
        ("aws:kms", "aws:kms", None),
        ("arn:aws:kms:us-east-1:123456789012:key/abc", "aws:kms", "arn:aws:kms:us-east-1:123456789012:key/abc"),
    ],
)
async def test_encryption_at_rest_is_asked_for(moto, sse, algorithm, key):
    async with store_at(moto.endpoint, sse=sse) as store:
        for content in (b"x", b"x" * (PART + 1)):
            blob = await store.put("acme/file", content, "text/plain")
            with looking_at(moto) as owner:
                head = owner.head_object(Bucket=BUCKET, Key=blob.uri.removeprefix(f"s3://{BUCKET}/"))

            assert (head["ServerSideEncryption"], head.get("SSEKMSKeyId", key)) == (
                algorithm,
                key or head.get("SSEKMSKeyId"),
            )


async def test_probes_ask_for_encryption_as_blobs_do(moto, monkeypatch):
    """A bucket may refuse whatever comes without."""
    async with store_at(moto.endpoint, sse="aws:kms") as store:
        asked, call = [], store._client.call

        async def noted(operation, **about):
            asked.append((operation, about.get("ServerSideEncryption")))
            return await call(operation, **about)

        monkeypatch.setattr(store._client, "call", noted)
        await store.check()
        await store._probes.denied("_check/none.txt", Denied(store._place, [], ""))

    assert {sse for operation, sse in asked if operation in {"put_object", "create_multipart_upload"}} == {"aws:kms"}


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    """Versitygw keeps no encryption settings."""
    server = moto_in(tmp_path_factory.mktemp("moto"), why="asked for")
    server.start()
    with looking_at(server) as owner:
        owner.create_bucket(Bucket=BUCKET)
    yield server
    server.kill()


# Servers that lack the newer parts of S3's protocol.


def _lacks(name, headers):
    """What an older server answers to a request with these headers: an error, or None if it ignores them."""
    newer = any(header.startswith(("x-amz-checksum-", "x-amz-trailer", "x-amz-sdk-checksum")) for header in headers)
    match name:
        case "conditions" if "if-none-match" in headers:
            return 501, "NotImplemented", "A header you provided implies functionality that is not implemented"
        case "checksums" if newer:
            return 400, "InvalidArgument", "Unknown header x-amz-checksum-sha256"
        case "both" if newer or "if-none-match" in headers:
            return 501, "NotImplemented", "Not implemented"
    return None


@contextlib.asynccontextmanager
async def older(server, lacking):
    """The endpoint of a proxy in front of moto (which checks no signature) that refuses or ignores what is newer."""

    async def passed_on(request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.method in {"PUT", "POST"} and (refused := _lacks(lacking, headers)):
            status, code, text = refused
            await request.read()
            body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
            return aiohttp.web.Response(status=status, text=body, content_type="application/xml")
        if lacking == "ignores conditions":
            headers.pop("if-none-match", None)
        async with session.request(
            request.method,
            f"{server.endpoint}{request.raw_path}",
            headers=headers,
            data=io.BytesIO(await request.read()),
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in {"transfer-encoding", "connection"}}
            if request.method != "HEAD":
                kept.pop("Content-Length", None)
            return aiohttp.web.Response(status=answer.status, body=await answer.read(), headers=kept)

    app = aiohttp.web.Application(client_max_size=64 * MB)
    app.router.add_route("*", "/{path:.*}", passed_on)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Content-Type"]) as session:
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("lacking", ["conditions", "ignores conditions", "checksums", "both"])
async def test_a_server_without_newer_parts_of_the_protocol_is_used_without_them(moto, lacking, checked):
    async with older(moto, lacking) as endpoint, store_at(endpoint) as store:
        remarks = await store.check() if checked else []
        first = await store.put("a/original.wav", b"first", "audio/wav", once=True)
        second = await store.put("a/original.wav", b"second", "audio/wav", once=True)
        large = await store.put("a/large.bin", pieces(*[b"x" * MB] * 17), "application/octet-stream", once=True)
        plain = await store.put("a/b.json", b"{}", "application/json")

        assert second == first
        assert await store.get(first.uri) == b"first"
        assert (await store.stat(large.uri)).size_bytes == 17 * MB
        assert await store.get(plain.uri) == b"{}"
        assert [uri async for uri in store.list("_check/")] == []
    if checked:
        assert any("If-None-Match" in remark for remark in remarks) == (lacking != "checksums")
        assert any("x-amz-checksum" in remark for remark in remarks) == (lacking in {"checksums", "both"})


async def test_a_server_with_all_of_the_protocol_is_asked_for_all_of_it(s3_server):
    async with store_at(s3_server.endpoint) as store:
        assert list(await store.check()) == []


def test_a_prefix_that_leaves_no_room_for_names_is_refused():
    with pytest.raises(SettingsError, match="prefix"):
        S3Store(BUCKET, prefix="x" * 200)


# Killed.


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path):
    server = server_in(tmp_path)
    server.genuine("disk")
    server.start()
    with looking_at(server) as owner:
        owner.create_bucket(Bucket=BUCKET)
    acked = {}
    async with store_at(server.endpoint, timeout=3) as store:
        await store.check()
        for number in range(2):
            writers = [asyncio.create_task(write_on(store, f"acme/{number}-{writer}", acked)) for writer in range(4)]
            while len(acked) < 40 * (number + 1):
                await asyncio.sleep(0.01)
            server.kill()
            ends = await asyncio.gather(*writers, return_exceptions=True)
            assert [type(end) for end in ends] == [Unavailable] * 4
            server.start()

        listed = [uri async for uri in store.list("")]
        assert set(acked) <= set(listed)
        for uri in listed:  # what was not acknowledged may be there, but only whole
            blob, content = await asyncio.gather(store.stat(uri), store.get(uri))
            assert blob.sha256 == hashlib.sha256(content).hexdigest()
            assert acked.get(uri, blob) == blob
    server.kill()


async def write_on(store, folder, acked):
    """Blobs of all sizes, some of them in parts, until one is not taken any more."""
    for turn in itertools.count():
        size = PART + MB if turn % 20 == 7 else turn * 1000
        blob = await store.put(
            f"{folder}/{turn}", hashlib.sha256(folder.encode()).digest() * (size // 32), "text/plain"
        )
        acked[blob.uri] = blob


async def _limited(*calls):
    async with time_limit(0.3):
        for call in calls:
            await call


async def test_a_slow_server_stops_the_clock_of_the_event_that_waits_for_it():
    async def slowly(writer, _):
        await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nx-amz-meta-sha256: 0\r\n\r\n")

    async with scripted(slowly) as (endpoint, asked), store_at(endpoint) as store:
        uri = store.uri("acme/a")
        await store.stat(uri)  # connects
        async with time_limit(0.3):
            for _ in range(4):
                await store.stat(uri)
            await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            await _limited(store.stat(uri), asyncio.sleep(0.5))

    assert len(asked) == 6
